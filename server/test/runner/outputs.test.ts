import assert from 'node:assert/strict';
import { rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { AppError } from '../../core/errors.ts';
import { createOutputs } from '../../runner/outputs.ts';
import { openDatabase } from '../../sqlite/database.ts';
import { createOutputStore } from '../../sqlite/output-store.ts';
import { makeResultRoot } from '../fixtures/result-root.ts';

function setUp(t: TestContext) {
  const root = makeResultRoot(t);
  const db = openDatabase(join(root.root, 'jr_slurm.db'));
  t.after(() => db.close());
  const experiments = new Map<number, string | null>();
  const jobOf = (id: number) => (id <= 100 ? { id, experimentId: experiments.get(id) ?? null } : null);
  const outputs = createOutputs({ store: createOutputStore(db), results: root, jobOf, now: () => 1_700_000_000_000 });
  const idsOf = (jobId: number) =>
    Object.fromEntries(outputs.ofJob(jobId, '', 1000).outputs.map((each) => [each.outputId, each.path]));
  return { root, outputs, idsOf, experiments };
}

test('without a manifest every file is an output of the experiment that is named after the job', async (t) => {
  const { root, outputs, idsOf } = setUp(t);
  root.write(1, 'result.json', '{}');
  root.write(1, 'weights/model.pth', 'abc');
  const report = await outputs.index(1);
  assert.deepEqual(report, { experimentId: 'job-1', count: 2, skipped: [], skippedCount: 0 });
  assert.deepEqual(idsOf(1), { result: 'result.json', model: 'weights/model.pth' });
  const [weights] = outputs.ofJob(1, '', 1).outputs;
  assert.deepEqual(weights, {
    experimentId: 'job-1',
    outputId: 'model',
    jobId: 1,
    path: 'weights/model.pth',
    bytes: 3,
    weights: true,
    createdAt: 1_700_000_000_000,
  });
});

test('a manifest decides, and of its entries those that are no file of the job are told', async (t) => {
  const { root, outputs, idsOf, experiments } = setUp(t);
  experiments.set(1, 'by-parameter');
  root.write(1, 'result.json', '{}');
  root.write(1, 'unlisted', 'x');
  symlinkSync('/etc/shadow', root.at(1, 'shadow'));
  const list = ['result.json', 'shadow', 'gone', '../2/x', '/etc/passwd'].map((path, n) => ({ id: `o${n}`, path }));
  root.write(1, 'manifest.json', JSON.stringify({ experimentId: 'by-manifest', outputs: list }));
  const report = await outputs.index(1);
  assert.deepEqual([report.experimentId, report.count, report.skippedCount], ['by-manifest', 1, 4]);
  assert.deepEqual(idsOf(1), { o0: 'result.json' });
  root.write(1, 'manifest.json', JSON.stringify({ outputs: list }));
  assert.equal((await outputs.index(1)).experimentId, 'by-parameter');
  assert.equal(outputs.page('by-manifest', '', '', 10).outputs.length, 0, 'nothing stays under the old name');
});

test('a manifest that is none, too large, or a link is told, and every file is indexed instead', async (t) => {
  const { root, outputs } = setUp(t);
  root.write(1, 'a.txt', 'x');
  for (const [content, why] of [
    ['not json', /is not valid JSON/],
    ['{"outputs":7}', /must be \{/],
    [`{"outputs":[]${' '.repeat(10_000_000)}}`, /is larger than/],
    [Buffer.from([0xff, 0xfe, 0x00]), /is not valid JSON/],
  ] as const) {
    root.write(1, 'manifest.json', content);
    const report = await outputs.index(1);
    assert.match(report.skipped[0]?.reason ?? '', why);
    assert.deepEqual([report.experimentId, report.count], ['job-1', 2]);
  }
  rmSync(root.at(1, 'manifest.json'));
  symlinkSync('/etc/shadow', root.at(1, 'manifest.json'));
  const report = await outputs.index(1);
  assert.deepEqual([report.count, report.skippedCount], [1, 2]);
});

test('indexing again follows what is there, and keeps the ids of what stayed', async (t) => {
  const { root, outputs, idsOf } = setUp(t);
  root.write(1, 'z/model.pth', 'x');
  root.write(1, 'gone', 'x');
  await outputs.index(1);
  root.write(1, 'model.pth', 'longer');
  rmSync(root.at(1, 'gone'));
  for (let n = 0; n < 3; n++) await outputs.index(1);
  assert.deepEqual(idsOf(1), { model: 'z/model.pth', 'model.pth': 'model.pth' });
});

test('of two jobs with one experiment the newer holds an id, and the older stays reachable by job', async (t) => {
  const { root, outputs, idsOf, experiments } = setUp(t);
  for (const jobId of [1, 2]) {
    experiments.set(jobId, 'shared');
    root.write(jobId, 'weights.pth', `of job ${jobId}`);
  }
  root.write(1, 'only-old', 'x');
  await outputs.index(2);
  await outputs.index(1);
  const held = outputs.page('shared', '', '', 10).outputs.map(({ outputId, jobId }) => [outputId, jobId]);
  assert.deepEqual(held, [
    ['only-old', 1],
    ['weights', 2],
  ]);
  assert.deepEqual(idsOf(1), { 'only-old': 'only-old', weights: 'weights.pth' });
  for (const [opened, content] of [
    [outputs.open('shared', 'weights'), 'of job 2'],
    [outputs.openPath(1, 'weights.pth'), 'of job 1'],
  ] as const) {
    const { handle } = await opened;
    assert.equal(await handle.readFile('utf8'), content);
    await handle.close();
  }
});

test('many who ask at once get the same true index', async (t) => {
  const { root, outputs, idsOf } = setUp(t);
  for (let n = 0; n < 200; n++) root.write(1, `f${n}.txt`, 'x');
  const reports = await Promise.all(Array.from({ length: 50 }, () => outputs.index(1)));
  assert.ok(reports.every((report) => report.count === 200));
  assert.equal(Object.keys(idsOf(1)).length, 200);
});

test('a job that nobody knows has no outputs', async (t) => {
  const { outputs } = setUp(t);
  const unknown = (error: unknown) => error instanceof AppError && error.code === 'not_found';
  await assert.rejects(outputs.index(101), unknown);
  await assert.rejects(outputs.openPath(101, 'a'), unknown);
  await assert.rejects(outputs.openResult(101), unknown);
  await assert.rejects(outputs.open('none', 'a'), unknown);
  assert.throws(() => outputs.ofJob(101, '', 1), unknown);
  assert.deepEqual(outputs.ofJob(5, '', 1), { outputs: [], next: null });
});
