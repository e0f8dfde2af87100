import type { JsonObject } from './json.ts';

/** Ours: a counting integer, written durably before any scheduler hears of the job, and never used twice. */
export type JobId = number;

export interface Resources {
  readonly gpus: number;
  readonly cpus: number;
  readonly memoryMiB: number;
  readonly timeLimitSeconds: number;
}

/** What the caller asked for, complete: nothing in it changes after the job is accepted. */
export interface JobSpec {
  readonly templateKey: string;
  readonly datasetSha: string;
  readonly params: JsonObject;
  readonly experimentId: string | null;
  readonly resources: Resources;
}

/** Slurm's own state words for the end of a job, and ours for a job of which nobody knows how it ended. */
export const END_STATUSES = [
  'COMPLETED',
  'FAILED',
  'CANCELLED',
  'TIMEOUT',
  'OUT_OF_MEMORY',
  'NODE_FAIL',
  'BOOT_FAIL',
  'DEADLINE',
  'PREEMPTED',
  'REFUSED', // the scheduler will not have it; it never ran
  'LOST', // no witness at all: it may have run, and how it ended cannot be known
] as const;
export type EndStatus = (typeof END_STATUSES)[number];

export interface Outcome {
  readonly status: EndStatus;
  /** Exit code of the batch script; null when it did not exit by itself or nobody saw it. */
  readonly exitCode: number | null;
  readonly signal: number | null;
  /** A sentence for people: why it ended this way. */
  readonly reason: string;
}

/** Times are milliseconds since the epoch. */
export type JobState =
  | { readonly phase: 'pending' } // stored, nobody else knows yet
  | { readonly phase: 'submitting'; readonly since: number } // perhaps known to the scheduler: ask before doing it again
  | {
      readonly phase: 'queued';
      readonly externalId: string;
      readonly reason: string;
      readonly estimatedStart: number | null;
    }
  | {
      readonly phase: 'running';
      readonly externalId: string;
      readonly startedAt: number;
      readonly gpuIds: readonly string[];
      /** Which life of the appliance saw it start: a job of an earlier life whose process is gone was killed with the machine. */
      readonly generation: string;
    }
  | {
      readonly phase: 'collecting'; // ended; outputs not indexed yet
      readonly externalId: string | null;
      readonly startedAt: number | null;
      readonly endedAt: number;
      readonly gpuIds: readonly string[];
      readonly outcome: Outcome;
    }
  | {
      readonly phase: 'finished';
      readonly externalId: string | null;
      readonly startedAt: number | null;
      readonly endedAt: number;
      readonly gpuIds: readonly string[];
      readonly outcome: Outcome;
    };

export interface Job {
  readonly id: JobId;
  readonly spec: JobSpec;
  readonly createdAt: number;
  /** A wish that the reconciler repeats until the scheduler agrees; null when nobody asked. */
  readonly cancelRequestedAt: number | null;
  readonly state: JobState;
}
