import { existsSync } from 'node:fs';
import { cpus as onlineCpus, totalmem } from 'node:os';
import { execa } from 'execa';
import { type DetectedGpus, detectGpus } from './detect-gpus.ts';
import { detectLimits } from './detect-limits.ts';

/** What the user set; null is detected. */
export interface MachineWishes {
  readonly gpus: number | null;
  readonly cpus: number | null;
  readonly memoryMiB: number | null;
  readonly gpuType: string | null;
  readonly devicePrefix: string;
}

export interface Machine {
  readonly cpus: number;
  readonly memoryMiB: number;
  readonly gpuType: string;
  readonly gpus: DetectedGpus['gpus'];
  readonly gpuSource: string;
}

/** Set aside for the daemons and the API; jobs may have the rest. */
const RESERVED_MIB = 256;

/** The machine as Slurm is to see it: what is set wins over what is found. */
export async function describeMachine(wishes: MachineWishes, rootfs = '/'): Promise<Machine> {
  const limits = detectLimits({ rootfs });
  const found =
    wishes.gpus === 0
      ? { gpus: [], source: 'JR_NUM_GPUS' }
      : await detectGpus({ rootfs, devicePrefix: wishes.devicePrefix, nvidiaSmi });
  if (wishes.gpus !== null && wishes.gpus > found.gpus.length) {
    const missing = `${wishes.devicePrefix}${found.gpus.length}`;
    throw new RangeError(
      `JR_NUM_GPUS is ${wishes.gpus}, but only ${found.gpus.length} can be found${existsSync(missing) ? '' : ` (${missing} is missing)`}: lower it, leave it unset, or see JR_GPU_DEV_PREFIX`,
    );
  }
  const gpus = wishes.gpus === null ? found.gpus : found.gpus.slice(0, wishes.gpus);
  const freeMiB = Math.floor(limits.memoryMiB * 0.95) - RESERVED_MIB;
  return {
    cpus: wishes.cpus ?? Math.min(limits.cpus, Math.max(1, onlineCpus().length)),
    memoryMiB: wishes.memoryMiB ?? Math.max(64, Math.min(freeMiB, Math.floor(totalmem() / 1_048_576))),
    gpuType: wishes.gpuType ?? gpuTypeOf(gpus.map(({ name }) => name)),
    gpus,
    gpuSource: found.source,
  };
}

/** A name that Slurm takes: `NVIDIA GeForce RTX 4090` is `rtx_4090`. Cards of different kinds, or without a name, are just `nvidia`. */
export function gpuTypeOf(names: readonly (string | null)[]): string {
  const types = new Set(
    names.map((name) =>
      (name ?? '')
        .toLowerCase()
        .replace(/\b(nvidia|geforce|tesla|quadro)\b/g, '')
        .replace(/[^a-z0-9]+/g, '_')
        .replace(/^_+|_+$/g, ''),
    ),
  );
  const [only] = types;
  return types.size === 1 && only ? only.slice(0, 63) : 'nvidia';
}

async function nvidiaSmi(args: readonly string[]): Promise<string | null> {
  // Without persistence mode the driver takes seconds to wake every card.
  const { exitCode, stdout } = await execa('nvidia-smi', [...args], {
    reject: false,
    timeout: 20_000,
    stdin: 'ignore',
  });
  return exitCode === 0 ? String(stdout) : null;
}
