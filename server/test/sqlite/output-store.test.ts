import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Output } from '../../core/output.ts';
import { openDatabase } from '../../sqlite/database.ts';
import { createOutputStore } from '../../sqlite/output-store.ts';

const output = (experimentId: string, outputId: string, jobId: number, path = outputId): Output => {
  return { experimentId, outputId, jobId, path, bytes: 1, weights: false, createdAt: 5 };
};

test('pages put together are the whole list, each id once and from the newest job', async () => {
  const db = openDatabase(':memory:');
  const store = createOutputStore(db);
  // Byte order and UTF-16 order differ here: U+FF5E sorts before U+1F600 in UTF-8 and after it in UTF-16.
  const ids = ['a', 'aa', 'ab', 'b', 'ü', '\uff5e', '\u{1f600}', '\u{10ffff}x', 'a%', 'a_', "a'"];
  for (const jobId of [3, 1, 2])
    await store.replace(
      jobId,
      ids.map((id) => output('e', id, jobId)),
    );
  await store.replace(9, [output('f', 'a', 9)]);
  const sorted = [...ids].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  for (const limit of [1, 2, 3, ids.length, 100]) {
    for (const prefix of ['', 'a', 'a_', '\u{10ffff}', 'zz']) {
      const seen: Output[] = [];
      let after: string | null = '';
      while (after !== null) {
        const page = store.page('e', prefix, after, limit);
        assert.ok(page.outputs.length <= limit);
        seen.push(...page.outputs);
        after = page.next;
      }
      assert.deepEqual(
        seen.map(({ outputId }) => outputId),
        sorted.filter((id) => id.startsWith(prefix)),
      );
      assert.ok(seen.every(({ jobId }) => jobId === 3));
    }
  }
  assert.deepEqual(
    store.page('e', 'b', 'a', 10).outputs.map(({ outputId }) => outputId),
    ['b'],
  );
  db.close();
});

test('a page costs the same when ten thousand jobs share its ids', async () => {
  const db = openDatabase(':memory:');
  const store = createOutputStore(db);
  const insert = db.prepare(`INSERT INTO outputs VALUES ('e', ?, ?, 'p', 0, 0, 0)`);
  db.transaction(() => {
    for (let jobId = 1; jobId <= 10_000; jobId++) for (const id of ['result', 'weights']) insert.run(id, jobId);
  })();
  const plan = db
    .prepare(
      'EXPLAIN QUERY PLAN SELECT * FROM outputs WHERE experiment_id = ? AND output_id > ? ORDER BY output_id, job_id DESC LIMIT ?',
    )
    .all('e', 'a', 1) as { detail: string }[];
  assert.deepEqual(
    plan.map(({ detail }) => /USING PRIMARY KEY/.test(detail)),
    [true],
    'no sorting, no scan',
  );
  const { outputs } = store.page('e', '', '', 100);
  assert.deepEqual(
    outputs.map(({ outputId, jobId }) => [outputId, jobId]),
    [
      ['result', 10_000],
      ['weights', 10_000],
    ],
  );
  db.close();
});

test("replacing makes exactly the given rows a job's, also thousands, and touches no other job's", async () => {
  const db = openDatabase(':memory:');
  const store = createOutputStore(db);
  await store.replace(2, [output('e', 'x', 2)]);
  const many = Array.from({ length: 3000 }, (_, n) => output('e', `o${n}`, 1));
  await store.replace(1, many);
  assert.equal((await store.allOfJob(1)).length, 3000);
  const changes = db.prepare('SELECT total_changes()').pluck();
  const before = changes.get();
  await store.replace(1, many);
  assert.equal(changes.get(), before, 'nothing is written when nothing differs');
  await store.replace(1, [...many.slice(10, 20), output('other', 'o5', 1)]);
  assert.equal((await store.allOfJob(1)).length, 11);
  await store.replace(1, [output('e', 'o10', 1, 'moved')]);
  assert.deepEqual(await store.allOfJob(1), [output('e', 'o10', 1, 'moved')]);
  await store.replace(1, []);
  assert.deepEqual(store.ofJob(1, '', 10), { outputs: [], next: null });
  assert.equal(store.ofJob(2, '', 10).outputs.length, 1);
  db.close();
});

test('other work gets its turn while a huge folder is written', async () => {
  const db = openDatabase(':memory:');
  const store = createOutputStore(db);
  const many = Array.from({ length: 5000 }, (_, n) => output('e', `o${n}`, 1));
  let turns = 0;
  const timer = setInterval(() => {
    turns += 1;
  }, 0);
  await store.replace(1, many);
  clearInterval(timer);
  assert.ok(turns >= 5, `${turns} turns`);
  db.close();
});
