import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';

/** A process as /proc shows it. A pid alone names nobody (pids are given out again); pid and start together do. */
export interface ProcessId {
  readonly pid: number;
  /** Field 22 of /proc/<pid>/stat: clock ticks from boot to its start. */
  readonly startTicks: number;
}

export interface ProcessInfo extends ProcessId {
  readonly comm: string;
  readonly state: string;
  readonly parent: number;
}

/** Null when there is no such process. */
export function readProcess(pid: number): ProcessInfo | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name stands in parentheses and may hold blanks and parentheses itself (proc(5)).
    const open = text.indexOf('(');
    const close = text.lastIndexOf(')');
    const rest = text.slice(close + 2).split(' ');
    return {
      pid,
      comm: text.slice(open + 1, close),
      state: rest[0] ?? '?',
      parent: Number(rest[1]),
      startTicks: Number(rest[19]),
    };
  } catch {
    return null;
  }
}

/** True while exactly this process lives (a zombie does not). */
export function isAlive({ pid, startTicks }: ProcessId): boolean {
  const found = readProcess(pid);
  return found !== null && found.startTicks === startTicks && found.state !== 'Z' && found.state !== 'X';
}

/** A pid file of ours: `<pid> <start ticks>`. Null when it is absent or broken. */
export function readPidFile(path: string): ProcessId | null {
  try {
    const match = /^(\d+) (\d+)\s*$/.exec(readFileSync(path, 'utf8'));
    return match === null ? null : { pid: Number(match[1]), startTicks: Number(match[2]) };
  } catch {
    return null;
  }
}

export function allProcesses(): ProcessInfo[] {
  return readdirSync('/proc').flatMap((name) => {
    const info = /^\d+$/.test(name) ? readProcess(Number(name)) : null;
    return info === null ? [] : [info];
  });
}

/**
 * Where the process works, as the folder's identity; null when we may not know. Its name would not do: in a container of this host the same
 * name means another folder.
 */
export function workingFolder(pid: number): string | null {
  return folderIdentity(`/proc/${pid}/cwd`);
}

/** Device and inode of a folder; null when there is none. */
export function folderIdentity(path: string): string | null {
  try {
    const { dev, ino } = statSync(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return null;
  }
}

/** Whether a path means to the process what it means to us: a container of this host has a mount namespace of its own. */
export function sharesOurFiles(pid: number): boolean {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`) === readlinkSync('/proc/self/ns/mnt');
  } catch {
    return false;
  }
}

/** As it was when the process started, NUL between its entries; empty when we may not know. */
export function environmentOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'latin1');
  } catch {
    return '';
  }
}

/** Sends a signal to exactly this process, or to nobody. */
export function signal(target: ProcessId, name: NodeJS.Signals): void {
  if (!isAlive(target)) return;
  try {
    process.kill(target.pid, name);
  } catch {
    // It ended between the look and the signal.
  }
}

/** Resolves with those that still live when all are gone or the time is over. */
export async function waitForEnd(targets: readonly ProcessId[], milliseconds: number): Promise<readonly ProcessId[]> {
  const deadline = Date.now() + milliseconds;
  let left = targets.filter(isAlive);
  while (left.length > 0 && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    left = left.filter(isAlive);
  }
  return left;
}

/** SIGTERM, and SIGKILL for what is still there after the grace. */
export async function end(targets: readonly ProcessId[], graceMilliseconds: number): Promise<void> {
  for (const target of targets) signal(target, 'SIGTERM');
  const left = await waitForEnd(targets, graceMilliseconds);
  for (const target of left) signal(target, 'SIGKILL');
  await waitForEnd(left, 2000);
}
