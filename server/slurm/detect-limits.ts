import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Where to look; tests give a folder that looks like a machine. */
export interface MachineFiles {
  /** `/` on a real machine: `/proc`, `/sys` and `/dev` are read below it. */
  readonly rootfs: string;
}

export interface MachineLimits {
  /** What this container may use; at least 1. */
  readonly cpus: number;
  /** What this container may use, before anything is set aside. */
  readonly memoryMiB: number;
}

const UNLIMITED_BYTES = 1e15;

/**
 * CPUs and memory that we may use: the smallest of what the machine has, the affinity mask, and the cgroup limits (v1 and v2) of our
 * cgroup and all above it. Soft memory limits count where they are set: on rented hosts that is what was paid for, the hard one is
 * only headroom.
 */
export function detectLimits({ rootfs }: MachineFiles): MachineLimits {
  const read = (path: string): string | null => {
    try {
      return readFileSync(join(rootfs, path), 'utf8').trim();
    } catch {
      return null;
    }
  };
  const cpus = [Number.POSITIVE_INFINITY];
  const bytes = [Number.POSITIVE_INFINITY];
  const affinity = /^Cpus_allowed_list:\s*(\S+)/m.exec(read('proc/self/status') ?? '')?.[1];
  if (affinity !== undefined) cpus.push(countCpuList(affinity));
  const total = /^MemTotal:\s*(\d+) kB/m.exec(read('proc/meminfo') ?? '')?.[1];
  if (total !== undefined) bytes.push(Number(total) * 1024);

  for (const { version, controllers, folders } of cgroupFolders(
    read('proc/self/cgroup') ?? '',
    read('proc/self/mountinfo') ?? '',
  )) {
    for (const folder of folders) {
      const number = (file: string) => limitOf(read(join(folder, file)));
      const list = (file: string) => countCpuList(read(join(folder, file)) ?? '');
      if (version === 2) {
        const [quota, period] = (read(join(folder, 'cpu.max')) ?? '').split(' ');
        cpus.push(quotaOf(quota, period), list('cpuset.cpus.effective'));
        bytes.push(number('memory.low'), number('memory.high'), number('memory.max'));
      } else {
        if (controllers.includes('cpu')) {
          const quota = read(join(folder, 'cpu.cfs_quota_us')) ?? undefined;
          cpus.push(quotaOf(quota, read(join(folder, 'cpu.cfs_period_us')) ?? undefined));
        }
        if (controllers.includes('cpuset')) cpus.push(list('cpuset.effective_cpus'), list('cpuset.cpus'));
        if (controllers.includes('memory')) {
          bytes.push(number('memory.soft_limit_in_bytes'), number('memory.limit_in_bytes'));
        }
      }
    }
  }
  const fewest = Math.min(...cpus.filter((n) => n > 0));
  const least = Math.min(...bytes.filter((n) => n > 0));
  return {
    cpus: Number.isFinite(fewest) ? Math.max(1, Math.floor(fewest)) : 1,
    memoryMiB: Number.isFinite(least) ? Math.max(1, Math.floor(least / 1_048_576)) : 1024,
  };
}

interface CgroupFolders {
  readonly version: 1 | 2;
  readonly controllers: readonly string[];
  /** Our cgroup and every one above it, as far as this mount shows them. */
  readonly folders: readonly string[];
}

/** Finds our cgroup's folders: /proc/self/cgroup says where we are in the hierarchy, mountinfo which part of it is mounted where. */
function cgroupFolders(membership: string, mountinfo: string): CgroupFolders[] {
  const places = new Map<string, string>();
  for (const line of membership.split('\n')) {
    const [, names, ...path] = line.split(':');
    if (names === undefined) continue;
    for (const name of names === '' ? ['2'] : names.split(',')) places.set(name, path.join(':'));
  }
  return mountinfo.split('\n').flatMap((line): CgroupFolders[] => {
    const [left, right] = line.split(' - ');
    const [, , , mountRoot, mountPoint] = (left ?? '').split(' ');
    const [type, , options] = (right ?? '').split(' ');
    if (mountRoot === undefined || mountPoint === undefined) return [];
    if (type === 'cgroup2') {
      return [{ version: 2, controllers: [], folders: chain(mountPoint, mountRoot, places.get('2') ?? '/') }];
    }
    if (type !== 'cgroup') return [];
    const controllers = (options ?? '').split(',').filter((name) => places.has(name));
    const [first] = controllers;
    if (first === undefined) return [];
    return [{ version: 1, controllers, folders: chain(mountPoint, mountRoot, places.get(first) ?? '/') }];
  });
}

/** From our cgroup up to the mount point. A place that the mount does not show (a container without its own cgroup namespace) is the mount point itself. */
function chain(mountPoint: string, mountRoot: string, place: string): string[] {
  const base = mountRoot === '/' ? '' : mountRoot;
  const relative = place === base || place.startsWith(`${base}/`) ? place.slice(base.length) : '';
  const parts = relative.split('/').filter((part) => part !== '' && part !== '..');
  return [mountPoint, ...parts.map((_, index) => join(mountPoint, ...parts.slice(0, index + 1)))];
}

/** Infinity for "no limit" in any of its spellings. */
function limitOf(text: string | null): number {
  if (text === null || !/^\d+$/.test(text)) return Number.POSITIVE_INFINITY;
  const value = Number(text);
  return value > 0 && value < UNLIMITED_BYTES ? value : Number.POSITIVE_INFINITY;
}

function quotaOf(quota: string | undefined, period: string | undefined): number {
  if (quota === undefined || !/^\d+$/.test(quota)) return Number.POSITIVE_INFINITY;
  const microseconds = Number(period ?? 100_000);
  // Half a CPU is one CPU to Slurm, 46.08 are 46.
  return Number(quota) > 0 && microseconds > 0
    ? Math.max(1, Math.floor(Number(quota) / microseconds))
    : Number.POSITIVE_INFINITY;
}

/** `0-3,8` is 5; Infinity when it is empty or unreadable. */
function countCpuList(text: string): number {
  let count = 0;
  for (const part of text.split(',')) {
    const match = /^(\d+)(?:-(\d+))?$/.exec(part.trim());
    if (match === null) continue;
    count += match[2] === undefined ? 1 : Math.max(0, Number(match[2]) - Number(match[1]) + 1);
  }
  return count > 0 ? count : Number.POSITIVE_INFINITY;
}
