import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  lchownSync,
  linkSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { AppError, type ErrorCode } from '../../core/errors.ts';
import { openResultFile, type ResultRoot } from '../../storage/result-folder.ts';
import { makeResultRoot, SUBMIT_UID } from '../fixtures/result-root.ts';

async function readAll(root: ResultRoot, jobId: number, path: string): Promise<string> {
  const { handle } = await openResultFile(root, jobId, path);
  try {
    return await handle.readFile('utf8');
  } finally {
    await handle.close();
  }
}

function refusedAs(code: ErrorCode, pattern: RegExp) {
  return (error: unknown) => error instanceof AppError && error.code === code && pattern.test(error.message);
}

test('an ordinary file of the job is opened, whatever its name', async (t) => {
  const root = makeResultRoot(t);
  for (const path of [
    'a.txt',
    'deep/er/b',
    'mit Leerzeichen',
    'ü/日本.bin',
    'new\nline',
    '…(deleted)',
    'x (deleted)',
    '-rf',
    '"q"',
    '\\',
  ]) {
    root.write(1, path, `content of ${path}`);
    assert.equal(await readAll(root, 1, path), `content of ${path}`);
  }
  assert.equal(await readAll(root, 1, './deep//er/./b'), 'content of deep/er/b');
});

test('a path that leads outside is refused before anything is touched', async (t) => {
  const root = makeResultRoot(t);
  root.write(2, 'secret', 'of job 2');
  root.write(1, 'a', 'a');
  for (const path of [
    '',
    '.',
    '/',
    '..',
    '../2/secret',
    'a/../../2/secret',
    '/etc/passwd',
    'a\0b',
    'x/..',
    '\ud800',
    'a/'.repeat(65),
    'n'.repeat(256),
  ]) {
    await assert.rejects(readAll(root, 1, path), refusedAs('invalid', /^the path must/), JSON.stringify(path));
  }
});

test('links, hard links, FIFOs, devices, sockets, folders and files of others are refused by what they are', async (t) => {
  const root = makeResultRoot(t);
  const database = join(root.root, 'jr_slurm.db');
  writeFileSync(database, 'records');
  symlinkSync(database, root.at(1, 'to-database'));
  symlinkSync('/etc/shadow', root.at(1, 'to-shadow'));
  symlinkSync('/nowhere', root.at(1, 'dangling'));
  linkSync(root.write(1, 'one', 'x'), root.at(1, 'two'));
  linkSync(database, root.at(1, 'hard-database'));
  execFileSync('mkfifo', [root.at(1, 'fifo')]);
  chownSync(root.at(1, 'fifo'), SUBMIT_UID, SUBMIT_UID);
  execFileSync('mknod', [root.at(1, 'zero'), 'c', '1', '5']);
  chownSync(root.at(1, 'zero'), SUBMIT_UID, SUBMIT_UID);
  mkdirSync(root.at(1, 'folder'));
  writeFileSync(root.at(1, 'of-root'), 'x');
  for (const [path, why] of [
    ['to-database', /is a symbolic link/],
    ['to-shadow', /is a symbolic link/],
    ['dangling', /is a symbolic link/],
    ['one', /several names/],
    ['two', /several names/],
    ['hard-database', /does not belong/],
    ['fifo', /no regular file/],
    ['zero', /no regular file/],
    ['folder', /is a folder/],
    ['of-root', /does not belong/],
  ] as const) {
    await assert.rejects(readAll(root, 1, path), refusedAs('forbidden', why), path);
  }
  await assert.rejects(readAll(root, 1, 'none'), refusedAs('not_found', /has no file "none"/));
  await assert.rejects(readAll(root, 1, 'of-root/below'), refusedAs('not_found', /has no file/));
});

test('a link in any folder on the way is refused, also when it is the result folder itself', async (t) => {
  const root = makeResultRoot(t);
  root.write(2, 'sub/file', 'of job 2');
  symlinkSync(join(root.folder, '2', 'sub'), root.at(1, 'sub'));
  symlinkSync('/etc', root.at(1, 'etc'));
  symlinkSync(root.at(1, '.'), root.at(1, 'loop'));
  root.write(1, 'own', 'x');
  symlinkSync(join(root.folder, '2'), join(root.folder, '3'));
  await assert.rejects(readAll(root, 1, 'sub/file'), refusedAs('forbidden', /leads out/));
  await assert.rejects(readAll(root, 1, 'etc/passwd'), refusedAs('forbidden', /./));
  await assert.rejects(readAll(root, 1, 'loop/own'), refusedAs('forbidden', /leads out/));
  await assert.rejects(readAll(root, 3, 'sub/file'), refusedAs('forbidden', /leads out/));
});

test('a file that is swapped for a link after it was taken hold of is served as it was, or not at all', async (t) => {
  const root = makeResultRoot(t);
  const secret = join(root.root, 'secret');
  writeFileSync(secret, 'SECRET');
  for (const step of ['held', 'checked'] as const) {
    const path = root.write(1, 'model.pth', 'weights');
    const opened = openResultFile(root, 1, 'model.pth', (now) => {
      if (now !== step) return;
      rmSync(path);
      symlinkSync(secret, path);
    });
    if (step === 'held') {
      await assert.rejects(opened, refusedAs('forbidden', /being removed/));
    } else {
      const { handle } = await opened;
      assert.equal(await handle.readFile('utf8'), 'weights');
      await handle.close();
    }
    rmSync(path);
  }
});

test('a folder that is swapped for a link after the file was taken hold of does not lead outside', async (t) => {
  const root = makeResultRoot(t);
  root.write(1, 'a/file', 'mine');
  root.write(2, 'file', 'of job 2');
  const { handle } = await openResultFile(root, 1, 'a/file', (step) => {
    if (step !== 'checked') return;
    renameSync(root.at(1, 'a'), root.at(1, 'b'));
    symlinkSync(join(root.folder, '2'), root.at(1, 'a'));
  });
  assert.equal(await handle.readFile('utf8'), 'mine');
  await handle.close();
});

test('hammered by a program that swaps file, link, hard link and folder, it never gives a byte from outside', async (t) => {
  const root = makeResultRoot(t);
  const secret = join(root.root, 'secret');
  writeFileSync(secret, 'SECRET');
  chownSync(secret, SUBMIT_UID, SUBMIT_UID); // The worst case: the owner alone does not give it away.
  root.write(1, 'd/file', 'fine');
  root.write(1, 'e/file', 'fine');
  symlinkSync(root.root, root.at(1, 'link'));
  const program = `
    import os, itertools
    os.chdir(${JSON.stringify(join(root.folder, '1'))})
    os.write(1, b'go')
    for n in itertools.count():
        os.symlink(${JSON.stringify(secret)}, 'tmp'); os.rename('tmp', 'd/file')
        with open('tmp', 'w') as f: f.write('fine')
        os.chown('tmp', ${SUBMIT_UID}, ${SUBMIT_UID}); os.rename('tmp', 'd/file')
        for _ in range(3000): pass
        os.link(${JSON.stringify(secret)}, 'tmp'); os.rename('tmp', 'd/file')
        os.unlink('d/file'); os.rename('d', 'x'); os.rename('link', 'd'); os.rename('d', 'link'); os.rename('x', 'd')
  `.replace(/^ {4}/gm, '');
  const child = spawn('/usr/bin/python3', ['-c', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  const seen = { fine: 0, refused: 0 };
  const start = performance.now();
  const bothSeen = () => seen.fine > 0 && seen.refused > 0;
  while (performance.now() < start + (bothSeen() ? 1500 : 20_000)) {
    for (const path of ['d/file', 'd/secret']) {
      try {
        assert.equal((await readAll(root, 1, path)) || 'fine', 'fine');
        seen.fine += 1;
      } catch (error) {
        if (!(error instanceof AppError)) throw error;
        seen.refused += 1;
      }
    }
  }
  child.kill('SIGKILL');
  await once(child, 'close');
  assert.ok(bothSeen(), `the race was on: ${JSON.stringify(seen)}`);
});

test('a file that the job made unreadable is refused with the reason', async (t) => {
  const root = makeResultRoot(t);
  chmodSync(root.write(1, 'private', 'x'), 0o600);
  mkdirSync(root.at(1, 'closed'));
  root.write(1, 'closed/file', 'x');
  chmodSync(root.at(1, 'closed'), 0o700);
  root.write(1, 'open', 'readable');
  process.setegid?.(65_534);
  process.seteuid?.(65_534);
  try {
    assert.equal(await readAll(root, 1, 'open'), 'readable');
    await assert.rejects(readAll(root, 1, 'private'), refusedAs('forbidden', /cannot be read/));
    await assert.rejects(readAll(root, 1, 'closed/file'), refusedAs('forbidden', /cannot be read/));
  } finally {
    process.seteuid?.(0);
    process.setegid?.(0);
  }
});

test('no descriptor is left open, whatever was refused', async (t) => {
  const root = makeResultRoot(t);
  symlinkSync('/etc/shadow', root.at(1, 'link'));
  lchownSync(root.at(1, 'link'), SUBMIT_UID, SUBMIT_UID);
  root.write(1, 'file', 'x');
  const before = openDescriptors();
  for (let n = 0; n < 50; n++) {
    await readAll(root, 1, 'file');
    await assert.rejects(readAll(root, 1, 'link'));
    await assert.rejects(readAll(root, 1, 'none'));
  }
  assert.equal(openDescriptors(), before);
});

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}
