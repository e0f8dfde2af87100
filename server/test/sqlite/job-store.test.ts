import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { openDatabase } from '../../sqlite/database.ts';
import { createJobStore } from '../../sqlite/job-store.ts';
import { specOf } from '../house/queue.ts';

const folder = mkdtempSync(join(tmpdir(), 'jr-job-store-'));
after(() => rmSync(folder, { recursive: true }));
const open = (name: string) => {
  const db = openDatabase(join(folder, name));
  return { db, store: createJobStore(db) };
};
const pending = { phase: 'pending' } as const;
const finished = {
  phase: 'finished',
  externalId: '1',
  startedAt: 1,
  endedAt: 2,
  gpuIds: ['0'],
  outcome: { status: 'COMPLETED', exitCode: 0, signal: null, reason: '' },
} as const;

test('a job comes back as it was stored, also after a restart', () => {
  const { db, store } = open('a.db');
  const spec = specOf('echo', { params: { text: '"é\u0000', deep: [{ a: null }] }, experimentId: 'e' });
  const job = store.insert(spec, pending, 5);
  assert.deepEqual(store.get(job.id), job);
  store.saveStates([{ id: job.id, state: finished }]);
  db.close();
  const again = open('a.db');
  assert.deepEqual(again.store.get(job.id), { ...job, state: finished });
  again.db.close();
});

test('an id is never used twice, also when the newest job was deleted', () => {
  const { db, store } = open('b.db');
  const first = store.insert(specOf('x'), pending, 1);
  db.prepare('DELETE FROM jobs').run();
  assert.equal(store.insert(specOf('x'), pending, 1).id, first.id + 1);
  db.close();
});

test('ids count on from what lies in the folders, also in a database that is new or old', () => {
  const { db, store } = open('e.db');
  store.countOnFrom(0);
  store.countOnFrom(40);
  assert.equal(store.insert(specOf('x'), pending, 1).id, 41);
  store.countOnFrom(7);
  store.countOnFrom(50);
  assert.equal(store.insert(specOf('x'), pending, 1).id, 51);
  db.close();
});

test('the unfinished are told without their parameters; the finished are not among them', () => {
  const { db, store } = open('c.db');
  const jobs = [1, 2, 3].map((at) => store.insert(specOf('x'), pending, at));
  store.saveStates([{ id: jobs[1]?.id ?? 0, state: finished }]);
  store.requestCancel(jobs[2]?.id ?? 0, 9);
  store.requestCancel(jobs[2]?.id ?? 0, 10);
  assert.deepEqual(store.unfinished(), [
    { id: jobs[0]?.id, state: pending, cancelRequestedAt: null },
    { id: jobs[2]?.id, state: pending, cancelRequestedAt: 9 },
  ]);
  db.close();
});

test('pages go from the newest to the oldest without gaps, whatever is added meanwhile', () => {
  const { db, store } = open('d.db');
  for (let i = 0; i < 5; i++) store.insert(specOf('x'), pending, i);
  const first = store.list({ limit: 2, before: null }).map(({ id }) => id);
  store.insert(specOf('x'), pending, 9);
  const second = store.list({ limit: 2, before: first.at(-1) ?? 0 }).map(({ id }) => id);
  assert.deepEqual(
    [first, second],
    [
      [5, 4],
      [3, 2],
    ],
  );
  db.close();
});
