import type { JobId } from './job.ts';

/** One indexed file of a job. `path` is relative to the job's result folder, with `/` between its parts. */
export interface Output {
  readonly experimentId: string;
  readonly outputId: string;
  readonly jobId: JobId;
  readonly path: string;
  readonly bytes: number;
  readonly weights: boolean;
  readonly createdAt: number;
}
