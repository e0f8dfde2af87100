import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { request } from 'node:http';
import { after, before, test } from 'node:test';
import { type BareApi, startBareApi } from '../house/bare-api.ts';

/**
 * Every call against everything that a confused or hostile client may send. The API is the real one on a real socket, with its real
 * database and templates; only the root parent is replaced by a recorder, so that "no process was started" can be seen: whatever
 * would start one has to be asked of the parent.
 */
let api: BareApi;
let sha: string;

before(async () => {
  api = await startBareApi({ cpus: 4, memoryMiB: 8192, gpus: 2 });
  sha = await api.addDataset('a dataset');
});
after(() => api.stop());

interface Case {
  readonly name: string;
  readonly method: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
  /** What `detail` or `errors` must name. */
  readonly names?: string;
  readonly status?: readonly number[];
}

const form = (fields: Readonly<Record<string, string>>) => ({
  headers: { 'content-type': 'application/x-www-form-urlencoded' },
  body: new URLSearchParams(fields).toString(),
});
const json = (value: unknown) => ({ headers: { 'content-type': 'application/json' }, body: JSON.stringify(value) });
const text = (body: string, type = 'application/json') => ({ headers: { 'content-type': type }, body });

const NASTY = {
  empty: '',
  blank: ' ',
  word: 'abc',
  negative: '-1',
  zeroX: '0x10',
  huge: '9'.repeat(400),
  beyondInteger: '9007199254740993',
  fraction: '1.5',
  exponent: '1e3',
  nan: 'NaN',
  infinity: 'Infinity',
  semicolon: '1;id',
  substitution: '$(id)',
  backticks: '`id`',
  newline: '1\n#SBATCH --uid=0',
  nul: '1\0',
  dots: '../../etc/passwd',
  quote: '1"\'',
  unicode: '１',
  option: '--wrap=id',
} as const;

const good = () => ({
  dataset_sha: sha,
  command_key: 'echo_params',
  gpus: '0',
  cpus: '1',
  mem_gb: '1',
  time_limit: '00:05:00',
});

function jobCases(): Case[] {
  const each = (field: string, values: Readonly<Record<string, string>>) =>
    Object.entries(values).map(([what, value]) => ({
      name: `POST /jobs: ${field} is ${what}`,
      method: 'POST',
      path: '/jobs',
      ...form({ ...good(), [field]: value }),
      names: field,
    }));
  const { empty: _e, blank: _b, ...nasty } = NASTY;
  return [
    ...each('gpus', NASTY),
    ...each('cpus', NASTY),
    ...each('mem_gb', { ...nasty, zero: '0' }),
    ...each('time_limit', {
      ...nasty,
      // "-1" and "huge" are refused by the grammar too; these look like a time and are none.
      zero: '0',
      clockWords: '1 hour',
      fourParts: '1:2:3:4',
      beyondMaximum: '8-00:00:00',
      negativeDays: '-1-00',
      trailing: '00:10:00 ',
    }),
    ...each('dataset_sha', {
      ...NASTY,
      short: 'a'.repeat(63),
      long: 'a'.repeat(65),
      notHex: 'g'.repeat(64),
      newlineAfter: `${'a'.repeat(64)}\n`,
    }),
    ...each('command_key', {
      ...nasty,
      unknown: 'no_such_template',
      proto: '__proto__',
      constructor: 'constructor',
      slash: 'a/b',
    }),
    ...each('params_json', {
      notJson: '{',
      array: '[]',
      number: '1',
      text: '"x"',
      null: 'null',
      nan: '{"a":NaN}',
      trailing: '{} x',
      deep: '['.repeat(5000),
    }),
    { name: 'POST /jobs: without any field', method: 'POST', path: '/jobs', names: 'dataset_sha' },
    {
      name: 'POST /jobs: without dataset_sha',
      method: 'POST',
      path: '/jobs',
      ...form({ command_key: 'echo_params' }),
      names: 'dataset_sha',
    },
    {
      name: 'POST /jobs: without command_key',
      method: 'POST',
      path: '/jobs',
      ...form({ dataset_sha: sha }),
      names: 'command_key',
    },
    {
      name: 'POST /jobs: with a mistyped field',
      method: 'POST',
      path: '/jobs',
      ...form({ ...good(), gpu: '1' }),
      names: 'gpu',
    },
    {
      name: 'POST /jobs: with __proto__',
      method: 'POST',
      path: '/jobs',
      ...text(`{"__proto__":{"x":1},"dataset_sha":"${sha}"}`),
    },
    {
      name: 'POST /jobs: more GPUs than there are',
      method: 'POST',
      path: '/jobs',
      ...form({ ...good(), gpus: '3' }),
      names: '2',
      status: [422],
    },
    {
      name: 'POST /jobs: more CPUs than there are',
      method: 'POST',
      path: '/jobs',
      ...form({ ...good(), cpus: '5' }),
      names: '4',
      status: [422],
    },
    {
      name: 'POST /jobs: more memory than there is',
      method: 'POST',
      path: '/jobs',
      ...form({ ...good(), mem_gb: '9' }),
      names: '8',
      status: [422],
    },
    {
      name: 'POST /jobs: an unknown dataset',
      method: 'POST',
      path: '/jobs',
      ...form({ ...good(), dataset_sha: '0'.repeat(64) }),
      names: 'dataset_sha',
      status: [404],
    },
    {
      name: 'POST /jobs: a field twice',
      method: 'POST',
      path: '/jobs',
      ...text(`${form(good()).body}&gpus=1`, 'application/x-www-form-urlencoded'),
      names: 'gpus',
    },
    {
      name: 'POST /jobs: JSON with a wrong type',
      method: 'POST',
      path: '/jobs',
      ...json({ ...good(), gpus: true }),
      names: 'gpus',
    },
    {
      name: 'POST /jobs: JSON with an object',
      method: 'POST',
      path: '/jobs',
      ...json({ ...good(), cpus: { a: 1 } }),
      names: 'cpus',
    },
    {
      name: 'POST /jobs: JSON with null',
      method: 'POST',
      path: '/jobs',
      ...json({ ...good(), time_limit: null }),
      names: 'time_limit',
    },
    {
      name: 'POST /jobs: JSON with a fraction',
      method: 'POST',
      path: '/jobs',
      ...json({ ...good(), gpus: 0.5 }),
      names: 'gpus',
    },
    { name: 'POST /jobs: JSON array', method: 'POST', path: '/jobs', ...json([1]) },
    { name: 'POST /jobs: JSON text', method: 'POST', path: '/jobs', ...json('x') },
    { name: 'POST /jobs: JSON cut short', method: 'POST', path: '/jobs', ...text('{"dataset_sha": "a') },
    {
      name: 'POST /jobs: JSON of 2 MB',
      method: 'POST',
      path: '/jobs',
      ...json({ params_json: 'x'.repeat(2_000_000) }),
      status: [413],
    },
    {
      name: 'POST /jobs: an unknown content type',
      method: 'POST',
      path: '/jobs',
      ...text('x', 'text/plain'),
      status: [415],
    },
    { name: 'POST /jobs: XML', method: 'POST', path: '/jobs', ...text('<a/>', 'application/xml'), status: [415] },
    {
      name: 'POST /jobs: a content type of nonsense',
      method: 'POST',
      path: '/jobs',
      ...text('x', ';;;'),
      status: [400, 415],
    },
    {
      name: 'POST /jobs: an unknown charset',
      method: 'POST',
      path: '/jobs',
      ...text('{}', 'application/json; charset=klingon'),
      status: [415],
    },
    {
      name: 'POST /jobs: an unknown encoding',
      method: 'POST',
      path: '/jobs',
      headers: { 'content-type': 'application/json', 'content-encoding': 'brokenzip' },
      body: '{}',
      status: [415],
    },
    {
      name: 'POST /jobs: gzip that is none',
      method: 'POST',
      path: '/jobs',
      headers: { 'content-type': 'application/json', 'content-encoding': 'gzip' },
      body: '{}',
    },
    {
      name: 'POST /jobs: multipart without a boundary',
      method: 'POST',
      path: '/jobs',
      ...text('x', 'multipart/form-data'),
    },
    {
      name: 'POST /jobs: multipart cut short',
      method: 'POST',
      path: '/jobs',
      ...text('--b\r\nContent-Disposition: form-data; name="gpus"\r\n\r\n1', 'multipart/form-data; boundary=b'),
    },
    {
      name: 'POST /jobs: multipart with a file',
      method: 'POST',
      path: '/jobs',
      ...multipart([['gpus', '1', 'x.txt']]),
      names: 'gpus',
    },
    {
      name: 'POST /jobs: multipart of 100,000 fields',
      method: 'POST',
      path: '/jobs',
      ...multipart(Array.from({ length: 100_000 }, (_, i) => [`f${i}`, ''])),
      status: [400, 413],
    },
    {
      name: 'POST /jobs: 100,000 urlencoded fields',
      method: 'POST',
      path: '/jobs',
      ...text('a=1&'.repeat(100_000), 'application/x-www-form-urlencoded'),
      status: [400, 413],
    },
    {
      name: 'POST /jobs: a field name of 10,000 characters',
      method: 'POST',
      path: '/jobs',
      ...multipart([['n'.repeat(10_000), '1']]),
      status: [400, 413],
    },
    {
      name: 'POST /jobs: a field of 3 MB',
      method: 'POST',
      path: '/jobs',
      ...multipart([['params_json', 'x'.repeat(3_000_000)]]),
      names: 'params_json',
      status: [413],
    },
    { name: 'POST /jobs: with a query', method: 'POST', path: '/jobs?gpus=1', ...form(good()), names: 'gpus' },
  ];
}

function idCases(): Case[] {
  const ids = [
    '0',
    '-1',
    'abc',
    '1.5',
    '1e3',
    '99999999999999999999',
    '1;id',
    '$(id)',
    '%00',
    '..%2f..%2fetc',
    '1%0a',
    '%F0%9F%98%80',
    'NaN',
  ];
  const calls: [string, string, string][] = [
    ['GET', '/jobs/', ''],
    ['GET', '/jobs/', '/log'],
    ['GET', '/jobs/', '/result'],
    ['POST', '/jobs/', '/cancel'],
    ['GET', '/outputs/by_job/', ''],
    ['POST', '/outputs/index/', ''],
  ];
  return calls.flatMap(([method, start, end]) => [
    ...ids.map((id) => ({ name: `${method} ${start}${id}${end}`, method, path: `${start}${id}${end}` })),
    { name: `${method} ${start}{unknown}${end}`, method, path: `${start}4711${end}`, status: [404] },
  ]);
}

function otherCases(): Case[] {
  return [
    ...['abc', 'a'.repeat(63), 'a'.repeat(65), 'g'.repeat(64), '%00', '..%2f..', '$(id)'].map((value) => ({
      name: `GET /datasets/exists/${value.slice(0, 12)} (${value.length})`,
      method: 'GET',
      path: `/datasets/exists/${value}`,
      status: [400],
    })),
    { name: 'a broken percent sign in the path', method: 'GET', path: '/jobs/%E0%A4%A' },
    { name: 'upload: no body', method: 'POST', path: '/datasets/upload', status: [400, 415] },
    { name: 'upload: JSON', method: 'POST', path: '/datasets/upload', ...json({ file: 'x' }), status: [400, 415] },
    {
      name: 'upload: without the part file',
      method: 'POST',
      path: '/datasets/upload',
      ...multipart([['sha256', 'a'.repeat(64)]]),
      names: 'file',
    },
    {
      name: 'upload: file as a plain field',
      method: 'POST',
      path: '/datasets/upload',
      ...multipart([['file', 'x']]),
      names: 'file',
    },
    {
      name: 'upload: file under another name',
      method: 'POST',
      path: '/datasets/upload',
      ...multipart([['data', 'x', 'x.txt']]),
      names: 'data',
    },
    {
      name: 'upload: a hash that is none, before the file',
      method: 'POST',
      path: '/datasets/upload',
      ...multipart([
        ['sha256', 'abc'],
        ['file', 'x', 'x.txt'],
      ]),
      names: 'sha256',
    },
    {
      name: 'upload: a hash that is none, after the file',
      method: 'POST',
      path: '/datasets/upload',
      ...multipart([
        ['file', 'x', 'x.txt'],
        ['sha256', 'abc'],
      ]),
      names: 'sha256',
    },
    {
      name: 'upload: another hash',
      method: 'POST',
      path: '/datasets/upload',
      ...multipart([
        ['file', 'x', 'x.txt'],
        ['sha256', '0'.repeat(64)],
      ]),
      names: 'sha256',
    },
    {
      name: 'upload: an unknown field',
      method: 'POST',
      path: '/datasets/upload',
      ...multipart([
        ['file', 'x', 'x.txt'],
        ['owner', 'me'],
      ]),
      names: 'owner',
    },
    {
      name: 'upload: cut short',
      method: 'POST',
      path: '/datasets/upload',
      ...text(
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc',
        'multipart/form-data; boundary=b',
      ),
    },
    {
      name: 'upload: 100,000 fields',
      method: 'POST',
      path: '/datasets/upload',
      ...multipart(Array.from({ length: 100_000 }, (_, i) => [`f${i}`, ''])),
      status: [400, 413],
    },
    ...Object.entries({
      missing: undefined,
      empty: '',
      nul: 'a\0b',
      long: 'a/'.repeat(5000),
    }).map(([what, value]) => ({
      name: `import_path: ${what}`,
      method: 'POST',
      path: '/datasets/import_path',
      ...form(value === undefined ? {} : { src_path: value }),
    })),
    ...[
      '',
      'experiment_id=',
      `experiment_id=${'x'.repeat(5000)}`,
      'experiment_id=a&experiment_id=b',
      'experiment_id=a&limit=0',
      'experiment_id=a&limit=-5',
      'experiment_id=a&limit=1e9',
      'experiment_id=a&unknown=1',
    ].map((query) => ({
      name: `GET /outputs?${query.slice(0, 40)}`,
      method: 'GET',
      path: `/outputs?${query}`,
    })),
    ...[
      '',
      'experiment_id=a',
      'output_id=a',
      'experiment_id=a&output_id=b',
      `experiment_id=a&output_id=${'y'.repeat(5000)}`,
      'experiment_id=%00&output_id=b',
    ].map((query) => ({
      name: `GET /outputs/download?${query.slice(0, 40)}`,
      method: 'GET',
      path: `/outputs/download?${query}`,
    })),
    ...[
      '',
      'job_id=1',
      'rel_path=a',
      'job_id=x&rel_path=a',
      'job_id=4711&rel_path=a',
      'job_id=4711&rel_path=../../jr_slurm.db',
      'job_id=4711&rel_path=/etc/shadow',
      'job_id=4711&rel_path=a%00b',
    ].map((query) => ({
      name: `GET /outputs/download_by_job?${query}`,
      method: 'GET',
      path: `/outputs/download_by_job?${query}`,
    })),
    ...['/', '/nothing', '/jobs/1/nothing', '/..%2f..%2fetc/passwd', '/templates/no_such', '/templates/__proto__'].map(
      (path) => ({
        name: `GET ${path}`,
        method: 'GET',
        path,
      }),
    ),
    { name: 'DELETE /jobs', method: 'DELETE', path: '/jobs' },
    { name: 'PATCH /health', method: 'PATCH', path: '/health' },
  ];
}

test('at least 150 kinds of bad input are refused with a problem that names the field, and no process is started', async (context) => {
  const cases = [...jobCases(), ...idCases(), ...otherCases()];
  assert.ok(cases.length >= 150, `only ${cases.length} cases`);
  context.diagnostic(`${cases.length} cases`);
  const wrong: string[] = [];
  for (const each of cases) {
    const fault = await faultOf(each);
    if (fault !== null) wrong.push(`${each.name}: ${fault}`);
  }
  assert.deepEqual(wrong, []);
  assert.deepEqual(api.asked(), [], 'the root parent was asked for something');
  assert.equal((await send({ name: 'still alive', method: 'GET', path: `/datasets/exists/${sha}` })).status, 200);
});

test('a request without the right token is answered 401 whatever else it holds', async () => {
  const tokens = [
    '',
    'Bearer',
    'Bearer ',
    'Bearer wrong',
    'Basic dXNlcjpwYXNz',
    `Bearer ${'x'.repeat(5000)}`,
    `bearer  ${api.token}x`,
  ];
  for (const authorization of tokens) {
    const answer = await send({
      name: authorization,
      method: 'POST',
      path: '/jobs',
      headers: { authorization },
      body: '{',
    });
    assert.equal(answer.status, 401, authorization);
    assert.match(String(answer.headers['www-authenticate']), /^Bearer/);
  }
});

async function faultOf(each: Case): Promise<string | null> {
  const answer = await send(each);
  if (answer.status < 400 || answer.status > 499) return `answered ${answer.status} ${answer.body.slice(0, 200)}`;
  if (each.status !== undefined && !each.status.includes(answer.status))
    return `answered ${answer.status} ${answer.body.slice(0, 200)}`;
  if (!String(answer.headers['content-type']).startsWith('application/problem+json'))
    return `answered ${answer.headers['content-type']}`;
  const problem = JSON.parse(answer.body) as { detail?: unknown; code?: unknown; request_id?: unknown };
  if (
    typeof problem.detail !== 'string' ||
    problem.detail === '' ||
    typeof problem.code !== 'string' ||
    !problem.request_id
  )
    return answer.body;
  if (each.names !== undefined && !answer.body.includes(each.names))
    return `does not name ${each.names}: ${answer.body.slice(0, 300)}`;
  if (/\bat .*\(|node_modules|\/tmp\/|server\//.test(answer.body))
    return `shows our insides: ${answer.body.slice(0, 300)}`;
  return null;
}

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

function send({ method, path, headers, body }: Case): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing = request(
      `${api.baseUrl}/`,
      {
        method,
        path,
        headers: { authorization: `Bearer ${api.token}`, ...headers, 'content-length': Buffer.byteLength(body ?? '') },
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: Buffer.concat(chunks).toString(),
          }),
        );
        response.on('error', reject);
      },
    );
    outgoing.setTimeout(10_000, () => outgoing.destroy(new Error(`no answer to ${method} ${path}`)));
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

function multipart(parts: readonly (readonly [name: string, value: string, fileName?: string])[]) {
  const boundary = createHash('sha256').update(randomBytes(8)).digest('hex');
  const lines = parts.map(([name, value, fileName]) => {
    const file = fileName === undefined ? '' : `; filename="${fileName}"\r\nContent-Type: application/octet-stream`;
    return `--${boundary}\r\nContent-Disposition: form-data; name="${name}"${file}\r\n\r\n${value}\r\n`;
  });
  return text(`${lines.join('')}--${boundary}--\r\n`, `multipart/form-data; boundary=${boundary}`);
}
