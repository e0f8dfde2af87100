import type { Job, JobId, Outcome } from './job.ts';

/** What a scheduler (and the witnesses that a job leaves) say of one job. Times are milliseconds since the epoch. */
export type Observation =
  | {
      readonly kind: 'queued';
      readonly externalId: string;
      readonly reason: string;
      readonly estimatedStart: number | null;
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

/** What runs jobs. Every executor passes `test/contract/executor.ts`. */
export interface Executor {
  /**
   * Hands the job over. Twice with one id: one job. Returns the scheduler's own id.
   * Throws AppError `refused_by_scheduler` (never ask again) or `unavailable` (ask `observe` before trying again).
   */
  submit(job: Job): Promise<string>;
  /** All asked-for jobs in one round trip, whatever their number. Throws `unavailable` when it could not ask. */
  observe(ids: readonly JobId[]): Promise<ReadonlyMap<JobId, Observation>>;
  /** Fine when the job ended or is unknown. Throws `unavailable`. */
  cancel(id: JobId): Promise<void>;
}
