import { type ChildProcess, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { z } from 'zod';
import { ERROR_CODES, messageOf } from '../../core/errors.ts';
import type { ChildAnswer, ChildOrder } from '../../storage/unpack-order.ts';
import type { DataContext } from './data-context.ts';

/**
 * Children that handle hostile bytes. Each has a user and group number of its own that nobody else on the machine has, no supplementary
 * groups, no capability and no way to get one, an empty environment, bounded memory and file size, and it dies with us.
 */
const FIRST_UID = 65_000; // from here on Debian gives numbers to nobody (policy 9.2.2; 64030 is slurm's), and up to 65519 they are
const LAST_UID = 65_519; // systemd's for users that come and go (https://systemd.io/UIDS-GIDS/)
const inUse = new Set<number>();

/** A number for one piece of work; give it back with `releaseUid`. */
export function takeUid(): number {
  for (;;) {
    const uid = randomInt(FIRST_UID, LAST_UID + 1);
    if (inUse.has(uid)) continue;
    inUse.add(uid);
    return uid;
  }
}

export function releaseUid(uid: number): void {
  inUse.delete(uid);
}

export interface Seal {
  readonly uid: number;
  /** Largest file that the child may write. */
  readonly maxFileBytes: number;
  readonly cwd: string;
}

/** 1 GiB of private memory: an xz or zstd dictionary needs up to 256 and 512 MiB, Node some hundred. */
const MAX_DATA_BYTES = 1024 * 1024 * 1024;

export function spawnSealed(
  seal: Seal,
  command: readonly string[],
  stdio: (number | 'pipe' | 'ignore' | ChildProcess['stdin'])[],
): ChildProcess {
  const argv = [
    `--reuid=${seal.uid}`,
    `--regid=${seal.uid}`,
    '--clear-groups',
    '--no-new-privs',
    '--inh-caps=-all',
    '--bounding-set=-all',
    '--pdeathsig=KILL',
    '--',
    '/usr/bin/prlimit',
    '--core=0',
    '--nproc=64',
    '--nofile=64',
    `--data=${MAX_DATA_BYTES}`,
    `--fsize=${seal.maxFileBytes}`,
    '--',
    ...command,
  ];
  return spawn('/usr/bin/setpriv', argv, { cwd: seal.cwd, env: {}, stdio, detached: true });
}

/** Our own program, sealed; `permissions` are Node's, on top of what the user number allows. */
export function nodeCommand(ctx: DataContext, order: ChildOrder, permissions: readonly string[]): readonly string[] {
  return [
    ctx.nodeBinary,
    '--no-warnings',
    '--max-old-space-size=384',
    ...permissions,
    ctx.unpackProgram,
    JSON.stringify(order),
  ];
}

/** Node's permission model: its program can be read, its folder read and written, nothing else. Relative links it cannot make. */
export function confinedTo(ctx: DataContext, folder: string): readonly string[] {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const flag = major > 22 || (major === 22 && minor >= 13) ? '--permission' : '--experimental-permission';
  return [flag, `--allow-fs-read=${ctx.unpackProgram}`, `--allow-fs-read=${folder}`, `--allow-fs-write=${folder}`];
}

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Waits for a child and collects what it says, bounded. `onOutput` hears of every piece, for the one who watches its progress. */
export function ended(child: ChildProcess, maxBytes: number, onOutput: () => void = () => {}): Promise<Ended> {
  const collect = (stream: NodeJS.ReadableStream | null, max: number) => {
    const pieces: Buffer[] = [];
    let bytes = 0;
    stream?.on('data', (piece: Buffer) => {
      onOutput();
      bytes += piece.length;
      if (bytes <= max) pieces.push(piece);
    });
    return () => Buffer.concat(pieces).toString('utf8');
  };
  const stdout = collect(child.stdout, maxBytes);
  const stderr = collect(child.stderr, 16_384);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve({ code, signal, stdout: stdout(), stderr: stderr() }));
  });
}

/** Ends a child that we no longer want, and whatever it may have started. */
export function kill(child: ChildProcess): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    child.kill('SIGKILL');
  }
}

/** The child handled hostile bytes, so its answer is checked like a stranger's. */
const childAnswer: z.ZodType<ChildAnswer> = z.discriminatedUnion('did', [
  z.object({
    did: z.literal('unpacked'),
    files: z.int().nonnegative(),
    bytes: z.int().nonnegative(),
    links: z.array(z.tuple([z.string(), z.string()])),
  }),
  z.object({ did: z.literal('nothing') }),
  z.object({ did: z.literal('linked') }),
  z.object({
    did: z.literal('copied'),
    bytes: z.int().nonnegative(),
    sha256: z.string().regex(/^[0-9a-f]{64}$/),
  }),
  z.object({ did: z.literal('refused'), code: z.enum(ERROR_CODES), message: z.string().max(4000) }),
]);

/** The child's answer, or an error that says how it died. */
export function answerOf(name: string, { code, signal, stdout, stderr }: Ended): ChildAnswer {
  try {
    if (code === 0) return childAnswer.parse(JSON.parse(stdout));
    throw new Error(`exit status ${code}, signal ${signal}`);
  } catch (error) {
    throw new Error(`${name} failed: ${messageOf(error)}; ${stderr.slice(0, 1000)}`);
  }
}
