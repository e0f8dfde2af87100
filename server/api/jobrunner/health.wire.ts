import { z } from 'zod';
import type { ApplianceHealth, NodeFacts } from '../../core/node.ts';

export const healthBody = z.object({
  ok: z.boolean(),
  slurm: z.boolean(),
  b2_mounted: z.boolean(),
  version: z.string(),
  daemons: z.record(z.string(), z.boolean()),
  node: z.object({
    state: z.string().nullable(),
    reason: z.string().nullable(),
    cpus: z.int(),
    memory_mib: z.int(),
  }),
  bucket: z.object({ enabled: z.boolean(), problem: z.string().nullable() }),
  gpus: z.object({ type: z.string(), total: z.int(), free: z.int().nullable() }),
});
export type HealthBody = z.output<typeof healthBody>;

/** Without secrets: this answer needs no token. */
export function healthOf(
  health: ApplianceHealth & { readonly usable: boolean },
  node: NodeFacts,
  version: string,
  bucketEnabled: boolean,
): HealthBody {
  const total = node.gpus.length;
  return {
    ok: health.usable,
    slurm: health.usable,
    b2_mounted: health.bucketMounted,
    version,
    daemons: { ...health.daemons },
    node: { state: health.nodeState, reason: health.nodeReason, cpus: node.cpus, memory_mib: node.memoryMiB },
    bucket: { enabled: bucketEnabled, problem: health.bucketProblem },
    gpus: { type: node.gpuType, total, free: health.gpusInUse === null ? null : Math.max(0, total - health.gpusInUse) },
  };
}
