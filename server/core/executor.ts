import type { Job, JobId, Outcome } from './job.ts';

/** What a scheduler (and the witnesses that a job leaves) say of one job. Times are milliseconds since the epoch. */
export type Observation =
  | {
      readonly kind: 'queued';
      readonly externalId: string;
      readonly reason: string;
      readonly estimatedStart: number | null;
      /** 1 is next; null when it is not waiting for its turn. */
      readonly position: number | null;
    }
  | {
      readonly kind: 'running';
      readonly externalId: string;
      readonly startedAt: number;
      readonly gpuIds: readonly string[];
    }
  | {
      readonly kind: 'ended';
      readonly externalId: string | null;
      readonly startedAt: number | null;
      readonly endedAt: number;
      readonly gpuIds: readonly string[];
      readonly outcome: Outcome;
    }
  /** The scheduler answered and does not know it, and nothing shows that it ever started: it may be submitted (again). */
  | { readonly kind: 'gone' }
  /** The answer does not allow a conclusion: ask again. */
  | { readonly kind: 'unclear'; readonly why: string };

export type Observations = ReadonlyMap<JobId, Observation>;

/** What is kept at hand of a job that has not finished. */
export type TrackedJob = Pick<Job, 'id' | 'cancelRequestedAt' | 'state'>;

/** What runs jobs. Every executor passes `test/contract/executor.ts`. */
export interface Executor {
  /**
   * Hands the job over. Twice with one id: one job. Returns the scheduler's own id.
   * Throws AppError `refused_by_scheduler` (never ask again) or `unavailable` (ask `observe` before trying again).
   */
  submit(job: Job): Promise<string>;
  /**
   * All jobs in one round trip, whatever their number. Give all that have not finished: what the scheduler has under our names
   * beyond them is surplus, and is cancelled where it has not started. Throws `unavailable` when it could not ask.
   */
  observe(jobs: readonly TrackedJob[]): Promise<Observations>;
  /** Fine when the job ended or is unknown. Throws `unavailable`. */
  cancel(id: JobId): Promise<void>;
  /** After a job's end, before its outputs are read: makes them readable for us. Repeatable. Throws `unavailable`. */
  release(id: JobId): Promise<void>;
  /** Tells which jobs left news, until `signal` aborts. `wanted` says which jobs news are kept of. */
  watch(options: {
    wanted(id: JobId): boolean;
    onNews(ids: readonly JobId[]): void;
    signal: AbortSignal;
  }): Promise<void>;
  /** What the news say, without asking the scheduler: never `gone`, never `queued`. */
  glance(jobs: readonly TrackedJob[]): Observations;
  /** The job has finished: what is remembered of it may go. */
  forget(id: JobId): void;
}
