import { z } from 'zod';

export const gpuFacts = z
  .object({
    /** Position in Slurm's gres list, from 0. */
    index: z.int(),
    file: z.string(),
    uuid: z.string().nullable(),
    name: z.string().nullable(),
  })
  .readonly();
export type GpuFacts = z.output<typeof gpuFacts>;

/** The one machine that Slurm schedules, as it was configured at start. */
export const nodeFacts = z
  .object({
    nodeName: z.string(),
    cpus: z.int(),
    memoryMiB: z.int(),
    gpus: z.array(gpuFacts).readonly(),
    gpuType: z.string(),
    maxTimeSeconds: z.int(),
  })
  .readonly();
export type NodeFacts = z.output<typeof nodeFacts>;

/** What is known of the running parts without asking anybody: kept current by polls, read by `/health`. */
export interface ApplianceHealth {
  readonly daemons: Readonly<Record<string, boolean>>;
  readonly nodeState: string | null;
  readonly nodeReason: string | null;
  readonly gpusInUse: number | null;
  readonly bucketMounted: boolean;
  /** Why the bucket is not mounted, in words; null when it is or none is wanted. */
  readonly bucketProblem: string | null;
  readonly observedAt: number | null;
}
