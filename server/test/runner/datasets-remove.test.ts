import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { AppError } from '../../core/errors.ts';
import { datasets } from '../../runner/datasets.ts';
import { openDatabase } from '../../sqlite/database.ts';
import { datasetStore } from '../../sqlite/dataset-store.ts';
import { pathsIn } from '../../storage/paths.ts';

const root = mkdtempSync(join(tmpdir(), 'jr-remove-'));
const paths = pathsIn(root);
const sha = 'a'.repeat(64);
mkdirSync(paths.dataset(sha), { recursive: true });
mkdirSync(paths.staging);
writeFileSync(join(paths.dataset(sha), 'data.txt'), 'data');
const db = openDatabase(paths.database);
after(() => {
  db.close();
  rmSync(root, { recursive: true });
});

const records = datasetStore(db);
let whileRemoved: () => Promise<never>;
const life = () =>
  datasets({
    paths,
    records,
    ask: () => whileRemoved(),
    limits: { uploadBytes: 1, unpackedBytes: 1, unpackRatio: 1, entries: 1, minFreeBytes: 0 },
    isNeeded: () => false,
    now: () => 1,
  });

test('a dataset whose removal fails is still there, and no job could take it meanwhile', async () => {
  await life().repair();
  whileRemoved = async () => {
    assert.equal(records.find(sha), null, 'nobody finds it while its folder goes');
    throw new AppError('unavailable', 'the root parent is gone');
  };
  await assert.rejects(life().remove(sha), /the root parent is gone/);
  assert.equal(records.find(sha)?.bytes, 4);
});

test('a crash between the record and the folder leaves a dataset, which the next start finds', async () => {
  // The process dies while it waits: nothing after the question is ever run.
  whileRemoved = () => new Promise<never>(() => {});
  void life().remove(sha);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(records.find(sha), null);
  assert.deepEqual(await life().repair(), { recorded: 1, forgotten: 0 });
  assert.equal(records.find(sha)?.bytes, 4);
});
