import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chownSync, linkSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { walkResultFolder } from '../../storage/result-walk.ts';
import { makeResultRoot, SUBMIT_UID } from '../fixtures/result-root.ts';

test('it finds every regular file and says of everything else why it is left out', async (t) => {
  const root = makeResultRoot(t);
  root.write(1, 'a.txt', 'abc');
  root.write(1, 'deep/er/b.bin', 'x');
  root.write(1, '日本', '');
  symlinkSync('/etc', root.at(1, 'etc'));
  symlinkSync('/etc/shadow', root.at(1, 'shadow'));
  linkSync(root.write(1, 'hard1', 'x'), root.at(1, 'hard2'));
  execFileSync('mkfifo', [root.at(1, 'fifo')]);
  writeFileSync(root.at(1, 'of-root'), 'x');
  const bad = Buffer.concat([Buffer.from(join(root.folder, '1/')), Buffer.from([0x62, 0xff, 0x64])]);
  writeFileSync(bad, 'x');
  chownSync(bad, SUBMIT_UID, SUBMIT_UID);
  const found = await walkResultFolder(root, 1);
  assert.deepEqual(
    [...found.files].sort((a, b) => (a.path < b.path ? -1 : 1)),
    [
      { path: 'a.txt', bytes: 3 },
      { path: 'deep/er/b.bin', bytes: 1 },
      { path: '日本', bytes: 0 },
    ],
  );
  assert.deepEqual(found.skipped.map(({ reason }) => reason).sort(), [
    'does not belong to the user that jobs run as',
    'has a name that is not UTF-8',
    'has several names (hard links)',
    'has several names (hard links)',
    'is a symbolic link',
    'is a symbolic link',
    'is no regular file',
  ]);
  assert.equal(found.skippedCount, 7);
});

test('a result folder that is missing, or a link to elsewhere, holds nothing', async (t) => {
  const root = makeResultRoot(t);
  root.write(2, 'file', 'of job 2');
  symlinkSync(join(root.folder, '2'), join(root.folder, '1'));
  for (const jobId of [1, 7]) {
    const { files, skipped } = await walkResultFolder(root, jobId);
    assert.deepEqual(files, []);
    assert.match(skipped[0]?.reason ?? '', /cannot be opened/);
  }
});

test('entries, depth and time are bounded, and it says so', async (t) => {
  const root = makeResultRoot(t);
  for (let n = 0; n < 300; n++) root.write(1, `many/${n}`, '');
  const few = await walkResultFolder(root, 1, { entries: 100, milliseconds: 10_000 });
  assert.equal(few.files.length, 99); // and the folder
  assert.match(few.skipped[0]?.reason ?? '', /more than the 100 entries/);
  const all = await walkResultFolder(root, 1, { entries: 301, milliseconds: 10_000 });
  assert.deepEqual([all.files.length, all.skippedCount], [300, 0]);
  const late = await walkResultFolder(root, 1, { entries: 301, milliseconds: -1 });
  assert.match(late.skipped[0]?.reason ?? '', /took more than/);

  let deep = root.at(2, 'd');
  for (let n = 0; n < 80; n++, deep = join(deep, 'd')) mkdirSync(deep);
  root.write(2, 'file', 'x');
  const shallow = await walkResultFolder(root, 2);
  assert.deepEqual([shallow.files.length, shallow.skipped[0]?.reason], [1, 'is more than 64 folders deep']);
});

test('a thousand strange things are counted, and a hundred told', async (t) => {
  const root = makeResultRoot(t);
  for (let n = 0; n < 1000; n++) symlinkSync('/etc/shadow', root.at(1, `link${n}`));
  const { files, skipped, skippedCount } = await walkResultFolder(root, 1);
  assert.deepEqual([files.length, skipped.length, skippedCount], [0, 100, 1000]);
});
