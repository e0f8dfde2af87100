import { closeSync, constants, fstatSync, openSync, readFileSync, readSync } from 'node:fs';
import type { JobId } from '../core/job.ts';
import type { Paths } from '../storage/paths.ts';

/** What a job's script wrote when it claimed its id. Times are milliseconds since the epoch. */
export interface Claim {
  readonly slurmId: string | null;
  readonly pid: number;
  /** Since boot, in clock ticks: with the pid and the boot it means one process and no other (proc(5), starttime). */
  readonly startTicks: number;
  readonly boot: string;
  readonly at: number;
  readonly gpuIds: readonly string[];
}

export interface EndNote {
  readonly exitCode: number;
  readonly at: number;
}

export interface Witness {
  /** `unreadable`: somebody claimed, but left no or no sensible words. */
  readonly claim: Claim | 'unreadable' | null;
  readonly ended: EndNote | null;
}

/** A whole note ends with a dot of its own, so that half of one is not taken for it. */
function fieldsOf(text: string): ReadonlyMap<string, string> | null {
  if (!text.endsWith('\n.\n')) return null;
  return new Map(
    text
      .split('\n')
      .filter((line) => line.includes('='))
      .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
  );
}

export function parseClaim(text: string): Claim | null {
  const fields = fieldsOf(text);
  const pid = whole(fields?.get('pid'));
  const startTicks = whole(fields?.get('ticks'));
  const at = whole(fields?.get('at_us'));
  if (pid === null || startTicks === null || at === null) return null;
  const slurmId = fields?.get('slurm_id') ?? '';
  return {
    slurmId: /^\d{1,10}$/.test(slurmId) ? slurmId : null,
    pid,
    startTicks,
    boot: fields?.get('boot') ?? '',
    at: Math.floor(at / 1000),
    gpuIds: (fields?.get('gpus') ?? '').split(',').filter((id) => /^[\w:.-]{1,64}$/.test(id)),
  };
}

export function parseEndNote(text: string): EndNote | null {
  const fields = fieldsOf(text);
  const exitCode = whole(fields?.get('exit_code'));
  const at = whole(fields?.get('at_us'));
  return exitCode === null || at === null ? null : { exitCode, at: Math.floor(at / 1000) };
}

function whole(text: string | undefined): number | null {
  return text !== undefined && /^\d{1,16}$/.test(text) ? Number(text) : null;
}

export function readWitness(paths: Paths, id: JobId): Witness {
  const started = readNote(paths.witnessStarted(id));
  const ended = readNote(paths.witnessEnded(id));
  return {
    claim: started === null ? null : (parseClaim(started) ?? 'unreadable'),
    ended: ended === null ? null : parseEndNote(ended),
  };
}

/** The folder is the jobs' own: what lies in it may be a link, a FIFO or huge. Null when it is not there or is none of ours. */
function readNote(path: string): string | null {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT') return null;
    return '';
  }
  try {
    if (!fstatSync(fd).isFile()) return '';
    const buffer = Buffer.alloc(4096);
    return buffer.toString('utf8', 0, readSync(fd, buffer, 0, buffer.length, 0));
  } finally {
    closeSync(fd);
  }
}

/** Whether the process that claimed is still there; null when /proc does not tell. */
export function isAlive({ pid, startTicks, boot }: Claim): boolean | null {
  try {
    if (readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim() !== boot) return false;
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // A zombie has ended; its parent has not noticed yet.
    return Number(fields[19]) === startTicks && fields[0] !== 'Z';
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    return code === 'ENOENT' || code === 'ESRCH' ? false : null;
  }
}
