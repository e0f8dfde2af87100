import { setImmediate as breathe } from 'node:timers/promises';
import type { Logger } from 'pino';
import { AppError, messageOf } from '../core/errors.ts';
import type { Executor, Observation, TrackedJob } from '../core/executor.ts';
import type { Job, JobId, JobSpec, JobState } from '../core/job.ts';
import { type Action, collected, nextStep, refused, statusOf } from '../core/next-step.ts';
import type { JobStore } from '../sqlite/job-store.ts';
import { createCancellations } from './cancellations.ts';
import { createCollections } from './collections.ts';
import { createPacer } from './pacer.ts';
import { createRetries } from './retries.ts';
import { createSubmissions } from './submissions.ts';

export interface ReconcilerOptions {
  readonly store: JobStore;
  readonly executor: Executor;
  /** Indexes the outputs of an ended job. Repeatable. */
  readonly collect: (job: Job) => Promise<void>;
  readonly generation: string;
  readonly log: Logger;
}

/** What is known of a waiting job from the last poll and not worth a write. */
export interface Glimpse {
  readonly queuePosition: number | null;
  readonly estimatedStart: number | null;
  /** Why it could not be handed over yet. */
  readonly problem: string | null;
}

export interface Reconciler {
  /** Writes the job down durably and hands it over; does not wait for the scheduler. */
  accept(spec: JobSpec): Job;
  /** Waits until the scheduler answered for this job or could not be asked, at most `limitMs`. */
  settled(id: JobId, limitMs: number): Promise<void>;
  /** Writes the wish down and acts on it. Throws `conflict` when the job has ended. */
  cancel(id: JobId): void;
  glimpse(id: JobId): Glimpse;
  /** Why the scheduler cannot be asked at present; null when it can. */
  readonly problem: string | null;
  start(): void;
  /** Begins nothing new and waits for what was begun. */
  stop(): Promise<void>;
}

const JOBS_IN_ONE_GO = 200;

/**
 * Brings what is stored and what is real together, for ever: looks, lets `nextStep` decide, writes, acts. Starts from the database
 * alone, so that it may die at any moment. No job's error stops the others.
 */
export function createReconciler({ store, executor, collect, generation, log }: ReconcilerOptions): Reconciler {
  const tracked = new Map<JobId, TrackedJob>(store.unfinished().map((job) => [job.id, job]));
  const glimpses = new Map<JobId, Pick<Extract<Observation, { kind: 'queued' }>, 'position' | 'estimatedStart'>>();
  /** When the scheduler last answered a submission: an observation that began before it says nothing of that job. */
  const answeredAt = new Map<JobId, number>();
  const cancellations = createCancellations({ cancel: (id) => executor.cancel(id), log });
  const retries = createRetries();
  const watching = new AbortController();
  let problem: string | null = null;

  /** Writes the new states, all in one transaction, and only then makes them the truth that is acted upon. */
  function save(changes: readonly Pick<Job, 'id' | 'state'>[]): void {
    store.saveStates(changes);
    for (const { id, state } of changes) {
      const before = tracked.get(id);
      if (before === undefined) continue;
      if (before.state.phase !== state.phase) {
        const data = { jobId: id, from: before.state.phase, phase: state.phase, status: statusOf(state) };
        log.info('outcome' in state ? { ...data, reason: state.outcome.reason } : data, 'job changed phase');
      }
      if (state.phase !== 'finished') {
        tracked.set(id, { ...before, state });
        continue;
      }
      for (const map of [tracked, glimpses, answeredAt]) map.delete(id);
      for (const each of [retries, cancellations, executor]) each.forget(id);
    }
  }

  const submissions = createSubmissions(async (id) => {
    try {
      const job = store.get(id);
      if (job === null || job.state.phase !== 'submitting') return;
      const externalId = await executor.submit(job);
      answeredAt.set(id, performance.now());
      retries.forget(id);
      save([{ id, state: { phase: 'queued', externalId, reason: 'None', estimatedStart: null } }]);
      // What the job wrote while the answer was on its way was not looked at.
      pacer.news([id]);
      if (tracked.get(id)?.cancelRequestedAt != null) pacer.hurry();
    } catch (error) {
      answeredAt.set(id, performance.now());
      if (error instanceof AppError && error.code === 'refused_by_scheduler') {
        attempt(id, () => save([{ id, state: refused(error.message, Date.now()) }]));
        return;
      }
      log.warn({ jobId: id, reason: messageOf(error) }, 'job could not be handed over; it will be tried again');
      // Whether the scheduler is down for all is the poll's to find out; this job waits longer each time.
      retries.add(id, messageOf(error));
      pacer.hurry();
    }
  });

  const collections = createCollections({
    async collect(id) {
      await executor.release(id);
      const job = store.get(id);
      if (job !== null) await collect(job);
    },
    onDone(id, note) {
      const state = tracked.get(id)?.state;
      if (state?.phase === 'collecting') attempt(id, () => save([{ id, state: collected(state, note) }]));
    },
  });

  function attempt(id: JobId, act: () => void): void {
    try {
      act();
    } catch (error) {
      log.error({ jobId: id, err: error }, 'job could not be brought forward; it will be tried again');
    }
  }

  function setProblem(text: string | null): void {
    if ((text === null) !== (problem === null)) log.info({ reason: text }, 'whether the scheduler answers has changed');
    problem = text;
  }

  function act(id: JobId, action: Action): void {
    if (action === 'submit') submissions.add(id);
    if (action === 'collect') collections.add(id);
    if (action === 'cancel') cancellations.add(id);
  }

  /** One transaction for a handful of jobs. When it fails nothing is acted upon, and the next round does it. */
  function advance(ids: readonly JobId[], seen: ReadonlyMap<JobId, Observation>): void {
    const moment = { now: Date.now(), generation };
    const changes: Pick<Job, 'id' | 'state'>[] = [];
    const actions: [JobId, Action][] = [];
    for (const id of ids) {
      const job = tracked.get(id);
      if (job === undefined || submissions.has(id)) continue;
      const step = nextStep(job, seen.get(id) ?? null, moment);
      // While the scheduler cannot be asked a job stays where it is, so that `submitting` keeps meaning "perhaps known".
      if (step.action === 'submit' && (submissions.paused || retries.mustWait(id))) continue;
      if (step.state !== job.state) changes.push({ id, state: step.state });
      if (step.action !== 'none') actions.push([id, step.action]);
    }
    save(changes);
    for (const [id, action] of actions) act(id, action);
  }

  async function poll(): Promise<void> {
    const began = performance.now();
    let seen: ReadonlyMap<JobId, Observation> = new Map();
    try {
      seen = await executor.observe([...tracked.values()]);
      setProblem(null);
      submissions.resume();
    } catch (error) {
      if (!(error instanceof AppError)) log.error({ err: error }, 'the scheduler could not be asked');
      setProblem(messageOf(error));
      submissions.pause();
    }
    const usable = [...tracked.keys()].filter((id) => (answeredAt.get(id) ?? 0) < began);
    for (let i = 0; i < usable.length; i += JOBS_IN_ONE_GO) {
      const chunk = usable.slice(i, i + JOBS_IN_ONE_GO);
      for (const id of chunk) {
        const each = seen.get(id);
        if (each?.kind === 'queued') glimpses.set(id, { position: each.position, estimatedStart: each.estimatedStart });
        else glimpses.delete(id);
      }
      attempt(chunk[0] ?? 0, () =>
        advance(
          chunk.filter((id) => (answeredAt.get(id) ?? 0) < began),
          seen,
        ),
      );
      await breathe();
    }
  }

  function glance(ids: readonly JobId[]): void {
    const jobs = ids.flatMap((id) => {
      const job = tracked.get(id);
      return job === undefined || submissions.has(id) || !isLive(job.state) ? [] : [job];
    });
    const seen = executor.glance(jobs);
    for (const { id } of jobs) attempt(id, () => advance([id], seen));
  }

  const pacer = createPacer({
    poll,
    glance,
    log,
    busy: () => [...tracked.values()].some(({ state }) => state.phase !== 'collecting'),
  });

  return {
    accept(spec) {
      const now = Date.now();
      const pending: TrackedJob = { id: 0, cancelRequestedAt: null, state: { phase: 'pending' } };
      // The intention is written with the job itself: one write to the disk before the scheduler hears of it.
      const { state, action } = submissions.paused
        ? ({ state: pending.state, action: 'none' } as const)
        : nextStep(pending, null, { now, generation });
      const job = store.insert(spec, state, now);
      tracked.set(job.id, { id: job.id, cancelRequestedAt: null, state });
      log.info({ jobId: job.id, phase: state.phase, template: spec.templateKey }, 'job accepted');
      act(job.id, action);
      pacer.expect();
      return job;
    },
    settled: (id, limitMs) => submissions.settled(id, limitMs),
    cancel(id) {
      const job = tracked.get(id);
      if (job === undefined || !(isLive(job.state) || job.state.phase === 'pending')) {
        throw new AppError('conflict', `job ${id} has ended: there is nothing to cancel`);
      }
      const now = Date.now();
      store.requestCancel(id, now);
      tracked.set(id, { ...job, cancelRequestedAt: job.cancelRequestedAt ?? now });
      cancellations.forget(id);
      log.info({ jobId: id, phase: job.state.phase }, 'cancel requested');
      const known = job.state.phase === 'queued' || job.state.phase === 'running';
      if (known && !submissions.has(id)) act(id, 'cancel');
      pacer.hurry();
    },
    glimpse(id) {
      const seen = glimpses.get(id);
      const phase = tracked.get(id)?.state.phase;
      const waits = phase === 'pending' || phase === 'submitting';
      return {
        queuePosition: seen?.position ?? null,
        estimatedStart: seen?.estimatedStart ?? null,
        problem: waits ? (retries.reason(id) ?? problem) : null,
      };
    },
    get problem() {
      return problem;
    },
    start() {
      executor
        .watch({ wanted: (id) => tracked.has(id), onNews: (ids) => pacer.news(ids), signal: watching.signal })
        .catch((error: unknown) => log.error({ err: error }, 'no news are heard; the poll goes on'));
      pacer.start();
    },
    async stop() {
      watching.abort();
      collections.stop();
      submissions.pause();
      await pacer.stop();
      await submissions.idle();
    },
  };
}

function isLive(state: JobState): boolean {
  return state.phase === 'submitting' || state.phase === 'queued' || state.phase === 'running';
}
