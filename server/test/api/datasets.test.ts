import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type DataAppliance, dataRoot, leftInStaging, startData } from '../house/data-appliance.ts';
import { GENEROUS } from '../house/data-settings.ts';
import { tarOf } from '../house/tar-maker.ts';

const root = dataRoot();
const imports = mkdtempSync(join(tmpdir(), 'jr-test-import-'));
const NEEDED = Buffer.from('a job works with this');
let appliance: DataAppliance;

before(async () => {
  execFileSync('chmod', ['755', imports]);
  appliance = await startData(root.paths.root, {
    limits: { ...GENEROUS, uploadBytes: 3_000_000 },
    importRoots: [imports],
    needed: [digest(NEEDED)],
  });
});
after(async () => {
  assert.deepEqual(leftInStaging(root.paths.root), [], 'something is left in staging');
  await appliance.stop();
  root.remove();
  rmSync(imports, { recursive: true, force: true });
});

function digest(content: Buffer): string {
  return createHash('sha256').update(content).digest('hex');
}

/** A multipart body as written here, part by part. */
async function post(
  parts: string,
  boundary = 'b',
  headers: Record<string, string> = {},
): Promise<{ status: number; body: Record<string, unknown> }> {
  const response = await appliance.fetch('/datasets/upload', {
    method: 'POST',
    headers: { 'content-type': `multipart/form-data; boundary=${boundary}`, ...headers },
    body: parts,
  });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

const filePart = (content: string, name = 'a.txt', field = 'file') =>
  `--b\r\nContent-Disposition: form-data; name="${field}"; filename="${name}"\r\n\r\n${content}\r\n`;
const fieldPart = (name: string, value: string) =>
  `--b\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`;
const END = '--b--\r\n';

test('an uploaded file is stored under its SHA-256, and exists says so with a blank after the colon', async () => {
  const content = Buffer.from('hello');
  const sha = digest(content);
  assert.equal(await (await appliance.fetch(`/datasets/exists/${sha}`)).text(), '{ "exists": false }');
  const response = await appliance.upload(content, 'hello.txt');
  assert.equal(response.status, 200);
  const body = (await response.json()) as Record<string, unknown>;
  assert.equal(body.sha256, sha);
  assert.equal(body.stored_path, `datasets/${sha}/hello.txt`);
  assert.equal(body.bytes, 5);
  const exists = await appliance.fetch(`/datasets/exists/${sha.toUpperCase()}`);
  const text = await exists.text();
  assert.match(text, /"exists": true/);
  assert.equal((JSON.parse(text) as { info: { rel_path: string } }).info.rel_path, body.stored_path);
});

test('what is no SHA-256 is refused with 400 and the field', async () => {
  for (const text of ['abc', 'g'.repeat(64), '0'.repeat(63), '0'.repeat(65), '..%2f..', '%00']) {
    const response = await appliance.fetch(`/datasets/exists/${text}`);
    assert.equal(response.status, 400, text);
    assert.match(await response.text(), /sha256/);
  }
});

test('sha256 is taken before and after the file, in capitals too; a wrong one keeps nothing', async () => {
  for (const [content, form] of [
    ['before', (sha: string) => fieldPart('sha256', sha) + filePart('before') + END],
    ['after', (sha: string) => filePart('after') + fieldPart('sha256', sha.toUpperCase()) + END],
  ] as const) {
    const sha = digest(Buffer.from(content));
    const wrong = await post(form('0'.repeat(64)));
    assert.equal(wrong.status, 400);
    assert.equal(wrong.body.code, 'checksum_mismatch');
    assert.match(await (await appliance.fetch(`/datasets/exists/${sha}`)).text(), /"exists": false/);
    assert.equal((await post(form(sha))).status, 200);
  }
  for (const bad of ['', 'xyz', '0'.repeat(63)]) {
    const { status, body } = await post(filePart('never kept') + fieldPart('sha256', bad) + END);
    assert.equal(status, 400);
    assert.equal(body.code, 'invalid');
    assert.match(String(body.detail), /sha256/);
  }
});

test('the same bytes again, one after the other and at the same time, are one dataset and one answer', async () => {
  const content = tarOf({ name: 'a', content: randomBytes(50_000) });
  const answers = await Promise.all(
    Array.from({ length: 6 }, () => appliance.upload(content, 'x.tar').then((response) => response.text())),
  );
  answers.push(await (await appliance.upload(content, 'other-name.tar')).text());
  assert.equal(new Set(answers).size, 1, answers.join('\n'));
  assert.equal((JSON.parse(answers[0] ?? '') as { files: number }).files, 1);
});

test("the client's file name is a name and never a path", async () => {
  const names: readonly (readonly [string, string | RegExp])[] = [
    ['../../../etc/passwd', 'passwd'],
    ['C:\\\\Users\\\\me\\\\data.bin', 'data.bin'],
    ['..', 'upload'],
    ['.', 'upload'],
    ['a/', 'upload'],
    ['a\tb%0Ac', 'a_b_c'],
    ['\u202e.txt', /\.txt$/],
    ['-rf', '-rf'],
    [`${'ä'.repeat(300)}.parquet`, /^ä{100,}\.parquet$/],
  ];
  for (const [sent, kept] of names) {
    const { status, body } = await post(filePart(`content of ${sent}`, sent) + END);
    assert.equal(status, 200, JSON.stringify(body));
    const stored = String(body.stored_path).split('/');
    assert.equal(stored.length, 3, String(body.stored_path));
    if (typeof kept === 'string') assert.equal(stored[2], kept);
    else assert.match(stored[2] ?? '', kept);
    assert.deepEqual(readdirSync(root.paths.dataset(String(body.sha256))), [stored[2]]);
  }
});

test('forms that are wrong are refused with the field named', async () => {
  const cases: readonly (readonly [string, string, number, RegExp])[] = [
    ['no file', fieldPart('sha256', '0'.repeat(64)) + END, 400, /file/],
    ['nothing at all', END, 400, /file/],
    ['a file as text', fieldPart('file', 'text') + END, 400, /file/],
    ['two files', filePart('one') + filePart('two') + END, 400, /file/],
    ['a file of another name', filePart('x', 'a', 'archive') + END, 400, /archive/],
    ['an unknown field', filePart('unknown') + fieldPart('sha', 'x') + END, 400, /sha/],
    ['sha256 twice', filePart('twice') + fieldPart('sha256', 'a') + fieldPart('sha256', 'b') + END, 400, /sha256/],
    ['sha256 as a list', filePart('list') + fieldPart('sha256[]', 'a') + END, 400, /sha256/],
    ['a truncated form', filePart('truncated'), 400, /broken/],
    ['a form cut in a header', '--b\r\nContent-Disposition: form-da', 400, /broken/],
    ['fifty fields', Array.from({ length: 50 }, (_, i) => fieldPart(`f${i}`, 'x')).join('') + END, 413, /./],
    ['a field of 2 MiB', fieldPart('sha256', 'x'.repeat(2 * 1024 * 1024)) + END, 413, /sha256/],
  ];
  for (const [what, form, status, detail] of cases) {
    const answer = await post(form);
    assert.equal(answer.status, status, `${what}: ${JSON.stringify(answer.body)}`);
    assert.match(String(answer.body.detail), detail, what);
  }
  const wrongType = await appliance.fetch('/datasets/upload', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '{}',
  });
  assert.equal(wrongType.status, 415);
  const noBoundary = await appliance.fetch('/datasets/upload', {
    method: 'POST',
    headers: { 'content-type': 'multipart/form-data' },
    body: 'x',
  });
  assert.equal(noBoundary.status, 400);
});

test('an upload above the limit is refused with what is allowed: at once when announced, and on the way when not', async () => {
  const announced = await appliance.upload(Buffer.alloc(5_000_000), 'big.bin');
  assert.equal(announced.status, 413);
  assert.match(await announced.text(), /3000000/);
  const status = await new Promise<number | undefined>((resolve, reject) => {
    const sending = request(`${appliance.url}/datasets/upload`, {
      method: 'POST',
      headers: {
        authorization: 'Bearer secret',
        'content-type': 'multipart/form-data; boundary=b',
        'transfer-encoding': 'chunked',
      },
    });
    let answered = false;
    sending.once('error', (error) => (answered ? undefined : reject(error)));
    sending.once('response', (response) => {
      answered = true;
      resolve(response.statusCode);
      sending.destroy();
    });
    sending.write('--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n');
    // Never ends: the answer must come while it is still sending.
    const more = () => {
      if (!answered && !sending.destroyed) sending.write(Buffer.alloc(500_000), () => setImmediate(more));
    };
    more();
  });
  assert.equal(status, 413);
  await until(() => leftInStaging(root.paths.root).length === 0);
});

test('an upload that would leave too little space is refused with 507', async () => {
  const small = dataRoot();
  const full = await startData(small.paths.root, { limits: { ...GENEROUS, minFreeBytes: 2 ** 50 } });
  try {
    const response = await full.upload(Buffer.from('x'), 'x');
    assert.equal(response.status, 507);
    assert.deepEqual(leftInStaging(small.paths.root), []);
  } finally {
    await full.stop();
    small.remove();
  }
});

test('datasets are listed newest first, in pages that fit together', async () => {
  type Page = { datasets: { sha256: string; created_at: string }[]; next_after: string | null };
  const whole = (await (await appliance.fetch('/datasets?limit=1000')).json()) as Page;
  assert.ok(whole.datasets.length > 5);
  const times = whole.datasets.map(({ created_at }) => created_at);
  assert.deepEqual(times, [...times].sort().reverse());
  const collected: string[] = [];
  for (let after: string | null = ''; after !== null; ) {
    const page = (await (
      await appliance.fetch(`/datasets?limit=3${after === '' ? '' : `&after=${after}`}`)
    ).json()) as Page;
    collected.push(...page.datasets.map(({ sha256 }) => sha256));
    after = page.next_after;
  }
  assert.deepEqual(
    collected,
    whole.datasets.map(({ sha256 }) => sha256),
  );
  for (const bad of ['limit=0', 'limit=x', 'after=x', 'page=1'])
    assert.equal((await appliance.fetch(`/datasets?${bad}`)).status, 400);
});

test('a dataset is deleted with all its files, unless an unfinished job needs it', async () => {
  const content = tarOf({ name: 'd/a', content: randomBytes(100) }, { name: 'l', type: '2', target: 'd/a' });
  await appliance.upload(content, 'x.tar');
  const sha = digest(content);
  assert.equal((await appliance.fetch(`/datasets/${sha}`, { method: 'DELETE' })).status, 200);
  assert.ok(!existsSync(root.paths.dataset(sha)));
  assert.match(await (await appliance.fetch(`/datasets/exists/${sha}`)).text(), /"exists": false/);
  assert.equal((await appliance.fetch(`/datasets/${sha}`, { method: 'DELETE' })).status, 404);
  await appliance.upload(NEEDED, 'needed');
  const refused = await appliance.fetch(`/datasets/${digest(NEEDED)}`, { method: 'DELETE' });
  assert.equal(refused.status, 409);
  assert.match(await refused.text(), /job/);
  assert.ok(existsSync(root.paths.dataset(digest(NEEDED))));
});

async function importPath(source: unknown): Promise<{ status: number; body: Record<string, unknown> }> {
  const response = await appliance.fetch('/datasets/import_path', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ src_path: source }),
  });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

test('a file of an allowed folder is imported as if it had been uploaded, by a relative and by an absolute path', async () => {
  mkdirSync(join(imports, 'deep'));
  const archive = tarOf({ name: 'a', content: 'imported' });
  writeFileSync(join(imports, 'deep/set.tar'), archive, { mode: 0o644 });
  writeFileSync(join(imports, 'plain.csv'), 'a,b\n', { mode: 0o644 });
  symlinkSync('plain.csv', join(imports, 'inside'));
  const relative = await importPath('deep/set.tar');
  assert.equal(relative.status, 200, JSON.stringify(relative.body));
  assert.equal(relative.body.stored_path, `datasets/${digest(archive)}`);
  assert.equal(readFileSync(join(root.paths.dataset(digest(archive)), 'a'), 'utf8'), 'imported');
  const absolute = await importPath(join(imports, 'deep/set.tar'));
  assert.deepEqual(absolute.body, relative.body);
  assert.match(String((await importPath('plain.csv')).body.stored_path), /plain\.csv$/);
  assert.equal((await importPath('inside')).status, 200);
});

test('import_path gives nothing from outside of its folders, nothing that is no file, and says why', async () => {
  symlinkSync('/etc/passwd', join(imports, 'passwd'));
  symlinkSync('/etc', join(imports, 'etc'));
  symlinkSync('loop', join(imports, 'loop'));
  writeFileSync(join(imports, 'closed'), 'x', { mode: 0o600 });
  writeFileSync(join(imports, 'large'), Buffer.alloc(3_000_001), { mode: 0o644 });
  execFileSync('mkfifo', ['-m', '666', join(imports, 'fifo')]);
  const cases: readonly (readonly [unknown, number])[] = [
    ['nothing-here', 404],
    ['plain.csv/x', 404],
    ['/etc/passwd', 403],
    ['/etc/shadow', 403],
    [`${imports}-other/x`, 403],
    ['../etc/passwd', 403],
    ['deep/../../x', 403],
    [`${imports}/../../etc/passwd`, 403],
    ['passwd', 403],
    ['etc/hostname', 403],
    ['loop', 403],
    ['closed', 403],
    ['fifo', 403],
    ['/proc/self/environ', 403],
    ['deep', 400],
    ['large', 413],
    ['', 400],
    ['a\0b', 400],
    ['x'.repeat(5000), 400],
    [7, 400],
    [null, 400],
  ];
  for (const [source, status] of cases) {
    const answer = await importPath(source);
    assert.equal(answer.status, status, `${JSON.stringify(source)?.slice(0, 50)}: ${JSON.stringify(answer.body)}`);
    assert.ok(String(answer.body.detail).length > 10);
  }
});

async function until(condition: () => boolean): Promise<void> {
  const end = Date.now() + 20_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`waited in vain for ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
