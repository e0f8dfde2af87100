import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Bucket, bucketOf } from '../../appliance/bucket.ts';
import { bucketService, regionOf, s3fsArguments } from '../../appliance/bucket-service.ts';
import { ConfigError, readSettings } from '../../config.ts';
import { problemIn } from '../../parent/bucket-probe.ts';

const bucket: Bucket = {
  name: 'data',
  endpoint: 'https://s3.us-west-004.backblazeb2.com',
  keyId: 'KEYID',
  appKey: 'APPSECRET',
  mount: '/mnt/b2',
};
const at = { root: '/opt/jobrunner', uid: 1001, gid: 1002, s3fsVersion: 'V1.90', minFreeMiB: 512 };
const wanted = { JR_B2_ENABLE: '1', JR_B2_BUCKET: 'data', JR_B2_KEY_ID: 'id', JR_B2_APP_KEY: 'key' };

test('no bucket is asked for unless JR_B2_ENABLE is 1', () => {
  assert.equal(bucketOf(readSettings({ ...wanted, JR_B2_ENABLE: '0' }).settings), null);
});

for (const name of ['JR_B2_BUCKET', 'JR_B2_KEY_ID', 'JR_B2_APP_KEY'])
  test(`a bucket without ${name} stops the start with a line that names it`, () => {
    const { settings } = readSettings({ ...wanted, [name]: '' });
    assert.throws(() => bucketOf(settings), new ConfigError(`${name} must be set when JR_B2_ENABLE is 1`));
  });

test('a key that s3fs could not read is refused without being repeated', () => {
  const { settings } = readSettings({ ...wanted, JR_B2_APP_KEY: 'very:secret' });
  assert.throws(
    () => bucketOf(settings),
    (error: Error) =>
      error instanceof ConfigError && error.message.startsWith('JR_B2_APP_KEY') && !error.message.includes('very'),
  );
});

test('no key stands in the scripts of the service nor in the arguments of s3fs', () => {
  const all = JSON.stringify([bucketService(bucket, at), s3fsArguments(bucket, at)]);
  assert.ok(!all.includes('KEYID') && !all.includes('APPSECRET'));
});

test('the region is read from the endpoint and named as this s3fs names it', () => {
  assert.equal(regionOf('https://s3.us-west-004.backblazeb2.com'), 'us-west-004');
  assert.equal(regionOf('https://s3.eu-central-1.amazonaws.com'), 'eu-central-1');
  assert.equal(regionOf('https://s3.amazonaws.com'), 'us-east-1');
  assert.equal(regionOf('http://127.0.0.1:9000'), 'us-east-1');
  const options = (s3fsVersion: string) =>
    s3fsArguments(bucket, { ...at, s3fsVersion })
      .at(-1)
      ?.split(',') ?? [];
  assert.ok(
    options('Amazon Simple Storage Service File System V1.90 (commit:unknown)').includes('endpoint=us-west-004'),
  );
  assert.ok(options('V1.95 with GnuTLS').includes('endpoint=us-west-004'));
  assert.ok(options('V1.96').includes('region=us-west-004'));
  assert.ok(options('V2.0').includes('region=us-west-004'));
});

test('a comma in a path stays in the path', () => {
  assert.match(s3fsArguments(bucket, { ...at, root: '/a,b' }).at(-1) ?? '', /,tmpdir=\/a\\,b\/run\/bucket\/tmp,/);
});

test('the scripts of the service are shell whatever the settings hold', () => {
  const odd = { ...bucket, name: "data:/a b$(x)';`y`", mount: '/mnt/a b"c' };
  for (const { text, executable } of Object.values(bucketService(odd, { ...at, root: "/r o'ot" })))
    if (executable) execFileSync('sh', ['-n'], { input: text, stdio: ['pipe', 'ignore', 'inherit'] });
});

test('the reason in the log of s3fs becomes a sentence that says what to check', () => {
  const life = (text: string) =>
    `[INF] s3fs version 1.90\n[CRT] unable to connect(host=x)\n[INF] s3fs version 1.90\n${text}\n`;
  assert.match(problemIn(life('[CRT] invalid credentials(host=x)'), bucket) ?? '', /key is refused.*JR_B2_KEY_ID/);
  assert.match(problemIn(life('[CRT] bucket or key not found(host=x)'), bucket) ?? '', /no bucket data at https/);
  assert.match(problemIn(life('### CURLE_COULDNT_RESOLVE_HOST'), bucket) ?? '', /JR_B2_ENDPOINT .* cannot be found/);
  assert.match(problemIn(life('[CRT] unable to connect(host=x)'), bucket) ?? '', /cannot be reached/);
  assert.equal(problemIn(life(''), bucket), null);
});

test('where a container may not mount, the reason is told and nothing is tried', () => {
  const module = join(import.meta.dirname, '../../appliance/bucket.ts');
  const program = `import { fuseProblem } from ${JSON.stringify(module)}; console.log(await fuseProblem());`;
  const text = execFileSync(
    'setpriv',
    ['--bounding-set', '-sys_admin', process.execPath, '--import', 'tsx', '--input-type=module', '-e', program],
    { encoding: 'utf8' },
  );
  assert.match(text, /no CAP_SYS_ADMIN.*--device \/dev\/fuse/);
});
