import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { after, test } from 'node:test';
import { pino } from 'pino';
import { AppError } from '../../core/errors.ts';
import type { Executor, Observation } from '../../core/executor.ts';
import type { JobId } from '../../core/job.ts';
import { createReconciler } from '../../runner/reconciler.ts';
import { openDatabase } from '../../sqlite/database.ts';
import { createJobStore } from '../../sqlite/job-store.ts';
import { specOf } from '../house/queue.ts';
import { until } from '../house/slurm.ts';

const folder = mkdtempSync(join(tmpdir(), 'jr-reconciler-'));
after(() => rmSync(folder, { recursive: true }));
let files = 0;

/** A scheduler that does as the test says, real SQLite, and the log. */
function house(over: Partial<Executor>, prepare: (store: ReturnType<typeof createJobStore>) => void = () => {}) {
  const db = openDatabase(join(folder, `${files++}.db`));
  const store = createJobStore(db);
  db.transaction(() => prepare(store))();
  const lines: Record<string, unknown>[] = [];
  const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(JSON.parse(line)) });
  const calls = { submit: [] as JobId[], cancel: [] as JobId[], observe: 0 };
  let active = 0;
  let most = 0;
  const executor: Executor = {
    async submit(job) {
      calls.submit.push(job.id);
      most = Math.max(most, ++active);
      try {
        return await (over.submit?.(job) ?? String(job.id));
      } finally {
        active--;
      }
    },
    async observe(jobs) {
      calls.observe++;
      return over.observe?.(jobs) ?? new Map();
    },
    async cancel(id) {
      calls.cancel.push(id);
      await over.cancel?.(id);
    },
    release: async () => {},
    watch: () => new Promise(() => {}),
    glance: () => new Map(),
    forget: () => {},
  };
  const reconciler = createReconciler({ store, executor, collect: async () => {}, generation: 'g', log });
  reconciler.start();
  const stop = async () => {
    await reconciler.stop();
    db.close();
  };
  return { store, reconciler, calls, lines, stop, most: () => most };
}

const waits = (id: JobId, reason = 'Priority'): Observation => ({
  kind: 'queued',
  externalId: String(id),
  reason,
  estimatedStart: null,
  position: id,
});

test('10,000 waiting jobs: a poll writes only what changed, and nobody waits long for the event loop', async () => {
  const COUNT = 10_000;
  const state = { phase: 'queued', externalId: '1', reason: 'Priority', estimatedStart: null } as const;
  const { reconciler, calls, store, stop } = house(
    { observe: async (jobs) => new Map(jobs.map(({ id }) => [id, waits(id, id === 7 ? 'Resources' : 'Priority')])) },
    (fresh) => {
      for (let id = 1; id <= COUNT; id++) fresh.insert(specOf('x'), { ...state, externalId: String(id) }, 1);
    },
  );
  await until('a first poll', () => reconciler.glimpse(COUNT).queuePosition === COUNT);
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  const polls = calls.observe;
  await until('two more', () => calls.observe >= polls + 2, 30_000);
  delay.disable();
  assert.equal(store.get(7)?.state.phase === 'queued' && (store.get(7)?.state as typeof state).reason, 'Resources');
  assert.ok(delay.max / 1e6 < 150, `the event loop was held for ${delay.max / 1e6} ms`);
  assert.ok(delay.percentile(99) / 1e6 < 50);
  await stop();
});

test('a burst of submissions is handed over a few at a time, each once', async () => {
  const { reconciler, calls, most, stop } = house({
    submit: (job) => new Promise((resolve) => setTimeout(() => resolve(String(job.id)), 5)),
  });
  const jobs = Array.from({ length: 60 }, () => reconciler.accept(specOf('x')));
  await Promise.all(jobs.map(({ id }) => reconciler.settled(id, 20_000)));
  assert.deepEqual(
    [...calls.submit].sort((a, b) => a - b),
    jobs.map(({ id }) => id),
  );
  assert.ok(most() <= 4);
  await stop();
});

test('one job that can never be handed over does not keep the others waiting', async () => {
  const { reconciler, store, stop } = house({
    async submit(job) {
      if (job.id === 1) throw new AppError('unavailable', 'never');
      return String(job.id);
    },
    observe: async (jobs) => new Map(jobs.map(({ id }) => [id, id === 1 ? { kind: 'gone' } : waits(id)])),
  });
  const [bad, good] = [reconciler.accept(specOf('x')), reconciler.accept(specOf('x'))];
  await until('the other', () => store.get(good.id)?.state.phase === 'queued');
  assert.equal(store.get(bad.id)?.state.phase, 'submitting');
  assert.equal(reconciler.glimpse(bad.id).problem, 'never');
  await stop();
});

test('an error that nobody foresaw ends neither the round nor the process, and is logged', async () => {
  let broken = true;
  const { reconciler, store, lines, stop } = house({
    async observe(jobs) {
      if (broken) throw new TypeError('unforeseen');
      return new Map(jobs.map(({ id }) => [id, waits(id)]));
    },
  });
  const job = reconciler.accept(specOf('x'));
  await until('it to be logged', () => lines.some(({ msg }) => msg === 'the scheduler could not be asked'));
  broken = false;
  await until('it to go on', () => store.get(job.id)?.state.phase === 'queued' && reconciler.problem === null);
  await stop();
});

test('a wish to cancel is repeated until the job has ended', async () => {
  let running = true;
  const { reconciler, store, calls, stop } = house({
    observe: async (jobs) =>
      new Map(
        jobs.map(({ id }): [JobId, Observation] => [
          id,
          running
            ? { kind: 'running', externalId: '1', startedAt: 1, gpuIds: [] }
            : {
                kind: 'ended',
                externalId: '1',
                startedAt: 1,
                endedAt: 2,
                gpuIds: [],
                outcome: { status: 'CANCELLED', exitCode: null, signal: null, reason: '' },
              },
        ]),
      ),
    cancel: async () => {
      throw new AppError('unavailable', 'try again');
    },
  });
  const { id } = reconciler.accept(specOf('x'));
  await until('it to run', () => store.get(id)?.state.phase === 'running');
  reconciler.cancel(id);
  await until('a second try', () => calls.cancel.length >= 2);
  running = false;
  await until('its end', () => store.get(id)?.state.phase === 'finished');
  await stop();
});

test('each change of phase is one line in the log, with the job and what it became', async () => {
  const { reconciler, lines, stop, store } = house({});
  const { id } = reconciler.accept(specOf('x'));
  await until('it to be queued', () => store.get(id)?.state.phase === 'queued');
  const told = lines.filter(({ jobId }) => jobId === id).map(({ msg, phase }) => [msg, phase]);
  assert.deepEqual(told, [
    ['job accepted', 'submitting'],
    ['job changed phase', 'queued'],
  ]);
  await stop();
});
