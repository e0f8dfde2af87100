import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AppError } from '../../core/errors.ts';
import type { Executor, Observation, TrackedJob } from '../../core/executor.ts';
import type { Job, JobSpec } from '../../core/job.ts';
import { until } from '../house/slurm.ts';

/** A scheduler of its own for one executor, with nothing in it that the suite did not put there. */
export interface ExecutorUnderTest {
  readonly executor: Executor;
  /** Jobs that end well, end with exit code 7, and run until they are cancelled; one that the scheduler can never run. */
  spec(kind: 'succeeds' | 'fails' | 'stays' | 'impossible'): JobSpec;
  /** How often the command of this job began. */
  starts(id: number): number;
  takeDown(): Promise<void>;
  bringBack(): Promise<void>;
}

/** What every executor promises. Registers its tests; `start` is called once, by the first. */
export function executorContract(name: string, start: () => Promise<ExecutorUnderTest>): void {
  let nextId = 1000;
  let started: Promise<ExecutorUnderTest> | null = null;
  const place = () => {
    started ??= start();
    return started;
  };

  async function submitted(kind: Parameters<ExecutorUnderTest['spec']>[0]): Promise<Job> {
    const { executor, spec } = await place();
    const job: Job = {
      id: nextId++,
      spec: spec(kind),
      createdAt: Date.now(),
      cancelRequestedAt: null,
      state: { phase: 'submitting', since: Date.now() },
    };
    const externalId = await executor.submit(job);
    return { ...job, state: { phase: 'queued', externalId, reason: '', estimatedStart: null } };
  }

  async function seen(job: TrackedJob, ...kinds: Observation['kind'][]): Promise<Observation> {
    const { executor } = await place();
    let last: Observation | undefined;
    await until(kinds.join(' or '), async () => {
      last = (await executor.observe([job])).get(job.id);
      return last !== undefined && kinds.includes(last.kind);
    });
    return last as Observation;
  }

  test(`${name}: a job that was handed over runs once and ends with its exit code and times`, async () => {
    const { starts } = await place();
    const job = await submitted('succeeds');
    const end = await seen(job, 'ended');
    assert.ok(end.kind === 'ended');
    assert.equal(end.outcome.status, 'COMPLETED');
    assert.equal(end.outcome.exitCode, 0);
    assert.ok(end.startedAt !== null && end.startedAt <= end.endedAt);
    assert.equal(starts(job.id), 1);
  });

  test(`${name}: a command that fails is FAILED with its exit code and a reason`, async () => {
    const end = await seen(await submitted('fails'), 'ended');
    assert.ok(end.kind === 'ended');
    assert.deepEqual([end.outcome.status, end.outcome.exitCode], ['FAILED', 7]);
    assert.match(end.outcome.reason, /7/);
  });

  test(`${name}: a job that is handed over twice is one job, with one answer`, async () => {
    const { executor, starts } = await place();
    const job = await submitted('stays');
    const again = await executor.submit(job);
    assert.ok(job.state.phase === 'queued');
    assert.equal(again, job.state.externalId);
    await seen(job, 'running');
    assert.equal(await executor.submit(job), job.state.externalId);
    await executor.cancel(job.id);
    await seen(job, 'ended');
    assert.equal(starts(job.id), 1);
  });

  test(`${name}: a running job is seen running since its start, and a cancelled one ends as CANCELLED`, async () => {
    const { executor } = await place();
    const job = await submitted('stays');
    const running = await seen(job, 'running');
    assert.ok(running.kind === 'running' && Math.abs(Date.now() - running.startedAt) < 20_000);
    await executor.cancel(job.id);
    const end = await seen(job, 'ended');
    assert.ok(end.kind === 'ended');
    assert.equal(end.outcome.status, 'CANCELLED');
  });

  test(`${name}: cancelling what is unknown or has ended is fine`, async () => {
    const { executor } = await place();
    await executor.cancel(999_999);
    const job = await submitted('succeeds');
    await seen(job, 'ended');
    await executor.cancel(job.id);
    assert.equal((await seen(job, 'ended')).kind, 'ended');
  });

  test(`${name}: a job that the scheduler never heard of is gone`, async () => {
    const { executor } = await place();
    const job: TrackedJob = { id: nextId++, cancelRequestedAt: null, state: { phase: 'submitting', since: 0 } };
    assert.deepEqual((await executor.observe([job])).get(job.id), { kind: 'gone' });
  });

  test(`${name}: what can never run is refused, in the scheduler's words`, async () => {
    await assert.rejects(submitted('impossible'), (error) => {
      assert.ok(error instanceof AppError);
      assert.equal(error.code, 'refused_by_scheduler');
      assert.ok(error.message.length > 20);
      return true;
    });
  });

  test(`${name}: all jobs are seen in one round trip`, async () => {
    const { executor } = await place();
    const jobs = [await submitted('succeeds'), await submitted('fails'), await submitted('succeeds')];
    await until('all to have ended', async () => {
      const all = await executor.observe(jobs);
      return jobs.every(({ id }) => all.get(id)?.kind === 'ended');
    });
  });

  test(`${name}: without the scheduler nothing is concluded, and afterwards all goes on`, async () => {
    const { executor, takeDown, bringBack, spec } = await place();
    const job = await submitted('stays');
    await seen(job, 'running');
    await takeDown();
    try {
      const unavailable = (error: unknown) => error instanceof AppError && error.code === 'unavailable';
      await Promise.all([
        assert.rejects(executor.observe([job]), unavailable),
        assert.rejects(executor.submit({ ...job, id: nextId++, spec: spec('succeeds') }), unavailable),
        assert.rejects(executor.cancel(job.id), unavailable),
      ]);
    } finally {
      await bringBack();
    }
    assert.equal((await seen(job, 'running')).kind, 'running');
    // It may have died before it saved the job's start: a wish to cancel ends the job's processes all the same.
    await executor.cancel(job.id);
    await seen(job, 'ended');
  });
}
