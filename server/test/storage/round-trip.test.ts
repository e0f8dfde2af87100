import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { type DataAppliance, dataRoot, leftInStaging, startData } from '../house/data-appliance.ts';
import { longName, pax, tarOf } from '../house/tar-maker.ts';

const root = dataRoot();
const work = mkdtempSync(join(tmpdir(), 'jr-test-trees-'));
let appliance: DataAppliance;

before(async () => {
  appliance = await startData(root.paths.root);
});
after(async () => {
  await appliance.stop();
  root.remove();
  rmSync(work, { recursive: true, force: true });
});

interface Stored {
  readonly sha256: string;
  readonly stored_path: string;
  readonly bytes: number;
  readonly files: number;
}

async function store(content: Buffer, name: string): Promise<Stored> {
  const response = await appliance.upload(content, name);
  const text = await response.text();
  assert.equal(response.status, 200, `${name}: ${text}`);
  return JSON.parse(text) as Stored;
}

/** Every path below a folder with its kind, its right to execute, and its content or target. */
function listing(folder: string): string {
  return execFileSync('find', ['.', '-mindepth', '1', '-printf', '%P\\0%y\\0%l\\0%s\\n'], {
    cwd: folder,
    encoding: 'utf8',
  })
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [path = '', kind, target, size] = line.split('\0');
      if (kind !== 'f') return `${path} ${kind} ${target}`;
      const digest = createHash('sha256')
        .update(readFileSync(join(folder, path)))
        .digest('hex');
      return `${path} f ${size} ${digest} ${(statSync(join(folder, path)).mode & 0o111) !== 0 ? 'x' : '-'}`;
    })
    .sort()
    .join('\n');
}

const name = fc
  .oneof(
    fc.stringMatching(/^[a-zA-Z0-9 _.,+@=-]{1,12}$/),
    fc.constantFrom('ümlaut', '数据', 'a b', '-rf', '...', 'x'.repeat(150), 'emoji 🙂'),
  )
  // zip itself takes "-" for its standard input.
  .filter((text) => text !== '-' && text !== '.' && text !== '..' && text.trim() === text);
const file = fc.record({
  path: fc.array(name, { minLength: 1, maxLength: 4 }),
  content: fc.oneof(fc.uint8Array({ maxLength: 2000 }), fc.constant(new Uint8Array(70_000).fill(7))),
  executable: fc.boolean(),
  link: fc.constantFrom('none', 'none', 'none', 'symbolic', 'hard'),
});

function build(
  folder: string,
  files: readonly { path: readonly string[]; content: Uint8Array; executable: boolean; link: string }[],
): void {
  mkdirSync(folder);
  for (const { path, content, executable, link } of files) {
    const at = join(folder, ...path);
    try {
      mkdirSync(dirname(at), { recursive: true });
      writeFileSync(at, content, { flag: 'wx' });
      chmodSync(at, executable ? 0o755 : 0o600);
      if (link === 'symbolic') symlinkSync(`./${path.at(-1)}`, `${at}.l`);
      if (link === 'hard') linkSync(at, `${at}.h`);
    } catch (error) {
      // Two random paths may want one place, as a file and as a folder.
      if (!['EEXIST', 'ENOTDIR', 'EISDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
    }
  }
}

const PACKERS: readonly (readonly [string, (folder: string) => Buffer])[] = [
  ['x.tar', (folder) => tar(folder, ['--format=gnu'])],
  ['x.tar.gz', (folder) => tar(folder, ['--format=posix', '-z'])],
  ['x.tgz', (folder) => tar(folder, ['--format=gnu', '-z', '-b', '1'])],
  ['x.tar.bz2', (folder) => tar(folder, ['--format=gnu', '-j'])],
  ['x.tar.xz', (folder) => tar(folder, ['--format=posix', '-J'])],
  ['x.tar.lzma', (folder) => tar(folder, ['--format=gnu', '--lzma'])],
  ['x.tar.zst', (folder) => tar(folder, ['--format=gnu', '--zstd'])],
  ['no-ending', (folder) => tar(folder, ['--format=posix', '--zstd'])],
  ['x.zip', (folder) => zip(folder)],
];

function tar(folder: string, options: readonly string[]): Buffer {
  return execFileSync('tar', ['-c', ...options, '-C', folder, '.'], {
    maxBuffer: 1024 ** 3,
    env: { PATH: process.env.PATH, XZ_OPT: '-0' },
  });
}

function zip(folder: string): Buffer {
  execFileSync('zip', ['-qry', '../out.zip', '.'], { cwd: folder, env: { PATH: process.env.PATH, LC_ALL: 'C.UTF-8' } });
  const content = readFileSync(join(folder, '../out.zip'));
  rmSync(join(folder, '../out.zip'));
  return content;
}

test('any tree that GNU tar or zip packs comes out as it was', { timeout: 120_000 }, async () => {
  let round = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(file, { minLength: 1, maxLength: 12 }), async (files) => {
      const folder = join(work, `tree-${++round}`);
      build(folder, files);
      const expected = listing(folder);
      const [ending, pack] = PACKERS[round % PACKERS.length] ?? ['x.tar', tar];
      const stored = await store(pack(folder, []), ending);
      assert.equal(listing(join(root.paths.root, stored.stored_path)), expected, ending);
      rmSync(folder, { recursive: true });
    }),
    { numRuns: 27, endOnFailure: true, includeErrorInReport: true },
  );
  assert.deepEqual(leftInStaging(root.paths.root), []);
});

test('every way to pack a folder is recognised by its content, whatever it is called', {
  timeout: 60_000,
}, async () => {
  for (const [index, [, pack]] of PACKERS.entries()) {
    const folder = join(work, `named-${index}`);
    mkdirSync(join(folder, 'data'), { recursive: true });
    writeFileSync(join(folder, 'data/file.txt'), `test content ${index}\n`);
    const stored = await store(pack(folder), 'blob');
    assert.equal(listing(join(root.paths.root, stored.stored_path)), listing(folder));
    assert.equal(stored.files, 1);
  }
});

test('what is published can be read by everybody and changed by nobody else', async () => {
  const folder = join(work, 'modes');
  mkdirSync(join(folder, 'closed'), { recursive: true });
  writeFileSync(join(folder, 'closed/secret'), 'x', { mode: 0o600 });
  chmodSync(join(folder, 'closed'), 0o700);
  const stored = await store(tar(folder, []), 'modes.tar');
  const at = join(root.paths.root, stored.stored_path);
  const asRunner = (argv: readonly string[]) =>
    execFileSync('setpriv', ['--reuid=61002', '--regid=61002', '--clear-groups', ...argv], { stdio: 'pipe' });
  assert.equal(asRunner(['cat', join(at, 'closed/secret')]).toString(), 'x');
  assert.throws(() => asRunner(['touch', join(at, 'closed/new')]));
  assert.throws(() => asRunner(['truncate', '-s0', join(at, 'closed/secret')]));
  assert.throws(() => asRunner(['touch', join(at, 'new')]));
});

test('a compressed file that holds no tar is one file and stays as it is', async () => {
  const compressed = execFileSync('gzip', ['-c'], { input: 'a table\n'.repeat(1000) });
  const stored = await store(compressed, 'table.csv.gz');
  assert.match(stored.stored_path, /\/table\.csv\.gz$/);
  assert.deepEqual(readFileSync(join(root.paths.root, stored.stored_path)), compressed);
});

test('a model that happens to be a zip stays the file that PyTorch reads', async () => {
  const folder = join(work, 'model');
  mkdirSync(folder);
  writeFileSync(join(folder, 'data.pkl'), 'x');
  const stored = await store(zip(folder), 'model.pt');
  assert.match(stored.stored_path, /\/model\.pt$/);
});

test("old and new tar dialects are read: v7, ustar's prefix, long names, pax, git's global header", async () => {
  const archive = tarOf(
    pax({ comment: '0123456789012345678901234567890123456789' }, 'g'),
    { name: 'old', content: 'v7', magic: '' },
    { name: 'short', prefix: 'a/prefix', content: 'ustar' },
    longName(`long/${'n'.repeat(200)}`),
    { name: 'cut', content: 'gnu', magic: 'ustar  \0' },
    pax({ path: 'päx/name', mtime: '1700000000.5', 'SCHILY.xattr.user.x': 'a\nb=c' }),
    { name: 'other', content: 'pax' },
    { name: 'folder/', type: '5' },
    { name: 'folder/hard', type: '1', target: 'old' },
    { name: 'folder/soft', type: '2', target: '../a/prefix/short' },
  );
  const stored = await store(archive, 'dialects.tar');
  const at = join(root.paths.root, stored.stored_path);
  assert.equal(readFileSync(join(at, 'old'), 'utf8'), 'v7');
  assert.equal(readFileSync(join(at, 'long', 'n'.repeat(200)), 'utf8'), 'gnu');
  assert.equal(readFileSync(join(at, 'päx/name'), 'utf8'), 'pax');
  assert.equal(readFileSync(join(at, 'folder/hard'), 'utf8'), 'v7');
  assert.equal(readFileSync(join(at, 'folder/soft'), 'utf8'), 'ustar');
});
