import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { atLeast, type CgroupMode, type SlurmVersion } from './render.ts';

const V1_CONTROLLERS = ['freezer', 'cpuset', 'memory', 'devices'] as const;

export type CgroupAnswer =
  | { readonly possible: true; readonly mode: CgroupMode }
  | { readonly possible: false; readonly reason: string };

/**
 * Whether Slurm may track and confine jobs by cgroups here, tried and not guessed. On v2 without systemd this also prepares the
 * hierarchy (https://slurm.schedmd.com/cgroup_v2.html): processes may not sit where controllers are handed down, so ours move to a leaf.
 *
 * @param mount `/sys/fs/cgroup`; tests give a folder.
 */
export function prepareCgroups(version: SlurmVersion, mount: string, systemd: boolean): CgroupAnswer {
  if (existsSync(join(mount, 'cgroup.controllers'))) {
    if (!atLeast(version, 22, 5)) {
      return {
        possible: false,
        reason: `this host has cgroup v2, which Slurm ${version.major}.${two(version.minor)} does not know`,
      };
    }
    return systemd ? { possible: true, mode: 'v2-systemd' } : delegate(mount);
  }
  for (const controller of V1_CONTROLLERS) {
    const folder = join(mount, controller);
    if (!existsSync(folder))
      return { possible: false, reason: `this host has no cgroup controller "${controller}" (${folder} is missing)` };
    const problem = tryMake(join(folder, `jobrunner-probe-${process.pid}`));
    if (problem !== null) return { possible: false, reason: `may not write ${folder} (${problem})` };
  }
  return { possible: true, mode: 'v1' };
}

/** What slurmd leaves of cgroup v1 when it ends: its own folders, empty by then (one that is not stays). */
export function removeCgroups(mount: string, nodeName: string): void {
  const remove = (folder: string) => {
    try {
      for (const entry of readdirSync(folder, { withFileTypes: true })) {
        if (entry.isDirectory()) remove(join(folder, entry.name));
      }
      rmdirSync(folder);
    } catch {
      // Absent, or a process is still in it.
    }
  };
  for (const controller of [...V1_CONTROLLERS, 'cpuacct']) remove(join(mount, controller, `slurm_${nodeName}`));
}

function delegate(mount: string): CgroupAnswer {
  const offered = readFileSync(join(mount, 'cgroup.controllers'), 'utf8').trim().split(' ');
  const missing = ['cpuset', 'cpu', 'memory'].filter((name) => !offered.includes(name));
  if (missing.length > 0) return { possible: false, reason: `cgroup v2 does not offer here: ${missing.join(', ')}` };
  try {
    const leaf = join(mount, 'jobrunner');
    mkdirSync(leaf, { recursive: true });
    for (const pid of readFileSync(join(mount, 'cgroup.procs'), 'utf8')
      .split('\n')
      .filter((line) => /^[1-9]\d*$/.test(line))) {
      try {
        writeFileSync(join(leaf, 'cgroup.procs'), pid);
      } catch {
        // A kernel thread or one that has just ended; if it matters, the next write says so.
      }
    }
    const wanted = ['cpuset', 'cpu', 'memory', 'pids'].filter((name) => offered.includes(name));
    writeFileSync(join(mount, 'cgroup.subtree_control'), wanted.map((name) => `+${name}`).join(' '));
    const slice = join(mount, 'system.slice');
    mkdirSync(slice, { recursive: true });
    return { possible: true, mode: 'v2-delegated' };
  } catch (error) {
    return {
      possible: false,
      reason: `may not change ${mount} (${(error as NodeJS.ErrnoException).code ?? 'unknown error'})`,
    };
  }
}

function tryMake(folder: string): string | null {
  try {
    mkdirSync(folder);
    rmdirSync(folder);
    return null;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'unknown error';
  }
}

function two(n: number): string {
  return String(n).padStart(2, '0');
}
