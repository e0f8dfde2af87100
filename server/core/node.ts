/** The one machine that Slurm schedules, as it was configured at start. */
export interface NodeFacts {
  readonly nodeName: string;
  readonly cpus: number;
  readonly memoryMiB: number;
  readonly gpus: readonly GpuFacts[];
  readonly gpuType: string;
  readonly maxTimeSeconds: number;
}

export interface GpuFacts {
  /** Position in Slurm's gres list, from 0. */
  readonly index: number;
  readonly file: string;
  readonly uuid: string | null;
  readonly name: string | null;
}

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
