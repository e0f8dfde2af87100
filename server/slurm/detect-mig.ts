import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DetectedGpu } from './detect-gpus.ts';

/**
 * The MIG instances of one card: each is a GPU to Slurm. nvidia-smi lists them with their UUIDs; the devices that open them are named
 * by the driver's capability files (https://docs.nvidia.com/datacenter/tesla/mig-user-guide/#device-nodes-and-capabilities):
 * /proc/driver/nvidia/capabilities/gpu<minor>/mig/gi<G>/access and …/ci<C>/access, each with `DeviceFileMinor: <n>` of
 * /dev/nvidia-caps/nvidia-cap<n>. Both lists run in the same order; where their lengths differ, the card's own file stands in.
 */
export function migInstances(
  rootfs: string,
  list: string,
  card: { readonly uuid: string; readonly minor: number; readonly file: string },
): DetectedGpu[] {
  const found: { uuid: string; name: string }[] = [];
  let ours = false;
  for (const line of list.split('\n')) {
    const gpu = /^GPU \d+: .*\(UUID: (GPU-[^)]+)\)/.exec(line);
    if (gpu !== null) ours = gpu[1] === card.uuid;
    const mig = /^\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[^)]+)\)/.exec(line);
    if (mig !== null && ours) found.push({ name: `mig ${mig[1] ?? ''}`, uuid: mig[2] ?? '' });
  }
  const capabilities = capabilityFiles(rootfs, card.minor);
  return found.map(({ uuid, name }, index) => {
    const files = capabilities.length === found.length ? (capabilities[index] ?? []) : [];
    return { files: [card.file, ...files], uuid, name };
  });
}

function capabilityFiles(rootfs: string, minor: number): string[][] {
  const mig = join(rootfs, `proc/driver/nvidia/capabilities/gpu${minor}/mig`);
  return numbered(mig, 'gi').flatMap((gi) =>
    numbered(join(mig, gi), 'ci').map((ci) =>
      [join(mig, gi, 'access'), join(mig, gi, ci, 'access')].flatMap((file) => {
        const number = minorIn(file);
        return number === null ? [] : [`/dev/nvidia-caps/nvidia-cap${number}`];
      }),
    ),
  );
}

function numbered(folder: string, stem: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => name.startsWith(stem) && /^\d+$/.test(name.slice(stem.length)))
      .sort((a, b) => Number(a.slice(stem.length)) - Number(b.slice(stem.length)));
  } catch {
    return [];
  }
}

function minorIn(file: string): string | null {
  try {
    return /^DeviceFileMinor:\s*(\d+)/m.exec(readFileSync(file, 'utf8'))?.[1] ?? null;
  } catch {
    return null;
  }
}
