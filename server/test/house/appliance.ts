import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runPaths } from '../../appliance/facts.ts';
import { isAlive, type ProcessInfo, readPidFile, readProcess } from '../../appliance/processes.ts';

const ENTRYPOINT = fileURLToPath(new URL('../../../entrypoint.sh', import.meta.url));

export interface ApplianceOptions {
  /** Settings beside those that the house makes (root, port, token, GPUs). */
  readonly env?: Readonly<Record<string, string>>;
  /** Stand-in GPU devices; 0 unless said. */
  readonly gpus?: number;
  /** An earlier appliance's root, to start a new life on it. */
  readonly root?: string;
  readonly port?: number;
  /** Prefix of the command: `['unshare', '--uts', …]`, say. */
  readonly wrapper?: readonly string[];
  /** Another copy's entrypoint.sh. */
  readonly entrypoint?: string;
}

export interface RunningAppliance {
  readonly baseUrl: string;
  readonly token: string;
  readonly root: string;
  readonly port: number;
  /** The entrypoint's pid: it becomes the supervisor. */
  readonly pid: number;
  /** All that it printed. */
  readonly output: () => string;
  /** SIGTERM; resolves with the exit code. */
  readonly stop: () => Promise<number | null>;
  /** Kills everything of it at once, jobs included, as when the machine loses its power. */
  readonly kill9: () => Promise<void>;
  /** Pid of munged, slurmctld, slurmd or api (the root parent). */
  readonly daemonPid: (name: 'munged' | 'slurmctld' | 'slurmd' | 'api') => number | null;
  /** Stops it if it runs and removes its root: for `after`. */
  readonly remove: () => Promise<void>;
  /** fetch with the token. */
  readonly call: (path: string, init?: RequestInit) => Promise<Response>;
  /** Environment for Slurm's own commands against it. */
  readonly slurmEnv: Readonly<Record<string, string>>;
}

export interface LaunchedAppliance extends RunningAppliance {
  readonly exited: () => boolean;
  readonly exit: Promise<number | null>;
}

/** Starts an appliance of our own through entrypoint.sh and waits until it takes jobs. */
export async function startAppliance(options: ApplianceOptions = {}): Promise<LaunchedAppliance> {
  const appliance = await launchAppliance(options);
  try {
    await waitUntil('the appliance takes jobs', 60_000, async () => {
      if (appliance.exited()) throw new Error('the appliance ended before it was ready');
      return (await healthStatus(appliance.baseUrl)) === 200;
    });
  } catch (error) {
    await appliance.kill9();
    if (options.root === undefined) await appliance.remove();
    throw new Error(`${(error as Error).message}\n${appliance.output()}`);
  }
  return appliance;
}

/** The same without waiting for readiness: for starts that are to fail. */
export async function launchAppliance(options: ApplianceOptions): Promise<LaunchedAppliance> {
  const root = options.root ?? newRoot();
  const port = options.port ?? (await freePort());
  const token = options.env?.JR_AUTH_TOKEN ?? 'test-token-0123456789';
  const entrypoint = options.entrypoint ?? ENTRYPOINT;
  const [file, ...args] = [...(options.wrapper ?? []), entrypoint];
  const child = spawn(file ?? entrypoint, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      PATH: process.env.PATH,
      JR_ROOT: root,
      PORT: String(port),
      JR_AUTH_TOKEN: token,
      JR_NUM_GPUS: String(options.gpus ?? 0),
      JR_GPU_DEV_PREFIX: standInGpus(root, options.gpus ?? 0),
      ...options.env,
    },
  });
  const pid = child.pid ?? 0;
  const output = collect(child);
  let over = false;
  const exit = new Promise<number | null>((resolve) => {
    child.once('exit', (code) => {
      over = true;
      resolve(code);
    });
  });
  const kill9 = async () => {
    if (!over) child.kill('SIGKILL');
    // What is killed may just have made another: look until nobody is left.
    await waitUntil('all processes are gone', 20_000, async () => {
      const left = processesOf(root);
      for (const each of left) killNow(each.pid);
      return left.length === 0;
    });
  };
  const stop = async () => {
    if (!over) child.kill('SIGTERM');
    return await within(20_000, exit, 'the appliance ends', output);
  };
  return {
    baseUrl: `http://127.0.0.1:${port}`,
    token,
    root,
    port,
    pid,
    output,
    stop,
    kill9,
    exited: () => over,
    exit,
    daemonPid: (name) => {
      const noted = readPidFile(runPaths(realpathSync(root)).pidFile(name));
      return noted !== null && isAlive(noted) ? noted.pid : null;
    },
    async remove() {
      if (!over) await stop().catch(() => undefined);
      await kill9();
      rmSync(root, { recursive: true, force: true });
      rmSync(`${root}.dev`, { recursive: true, force: true });
    },
    call: (path, init = {}) =>
      fetch(`http://127.0.0.1:${port}${path}`, {
        ...init,
        headers: { Authorization: `Bearer ${token}`, ...(init.headers as Record<string, string> | undefined) },
      }),
    slurmEnv: { PATH: process.env.PATH ?? '', SLURM_CONF: join(root, 'slurm/etc/slurm.conf') },
  };
}

/** A root that the service users can reach; remove it (and `<root>.dev`) afterwards. */
export function newRoot(): string {
  const root = mkdtempSync(join(tmpdir(), 'jr-'));
  chmodSync(root, 0o755);
  return root;
}

/** Every process that has to do with this root: by its command line, its environment or its working directory. */
export function processesOf(root: string): ProcessInfo[] {
  const known = new Map<number, ProcessInfo>();
  const children = new Set<number>();
  for (const name of readdirSync('/proc')) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    const info = readProcess(pid);
    if (info === null || info.state === 'Z') continue;
    known.set(pid, info);
    const texts = [
      readOrEmpty(`/proc/${pid}/cmdline`),
      readOrEmpty(`/proc/${pid}/environ`),
      linkOrEmpty(`/proc/${pid}/cwd`),
    ];
    if (texts.some((text) => mentions(text, root))) children.add(pid);
  }
  // The command of a job need not mention the root: whoever descends from one that does belongs to it.
  for (let grew = true; grew; ) {
    grew = false;
    for (const [pid, { parent }] of known) {
      if (!children.has(pid) && parent > 1 && children.has(parent)) {
        children.add(pid);
        grew = true;
      }
    }
  }
  return [...known.values()].filter(({ pid }) => children.has(pid));
}

/** `/tmp/jr-a` is not mentioned by `/tmp/jr-ab`. */
function mentions(text: string, root: string): boolean {
  for (let at = text.indexOf(root); at >= 0; at = text.indexOf(root, at + 1)) {
    if (!/[\w-]/.test(text[at + root.length] ?? '')) return true;
  }
  return false;
}

/** Asks again until it holds; throws when it does not in time. */
export async function waitUntil(
  what: string,
  milliseconds: number,
  holds: () => Promise<boolean> | boolean,
): Promise<void> {
  const deadline = Date.now() + milliseconds;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`waited ${milliseconds} ms in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 40));
  }
}

export async function healthStatus(baseUrl: string): Promise<number | null> {
  try {
    const response = await fetch(`${baseUrl}/health`, { signal: AbortSignal.timeout(2000) });
    await response.arrayBuffer();
    return response.status;
  } catch {
    return null;
  }
}

export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}

/** Character devices that stand in for GPUs; nobody opens them. Returns their prefix. */
function standInGpus(root: string, count: number): string {
  const folder = `${root}.dev`;
  mkdirSync(folder, { mode: 0o755, recursive: true });
  // An appliance that runs on this root still needs those of before.
  for (let n = 0; n < count; n++) {
    const file = join(folder, `nvidia${n}`);
    if (!existsSync(file)) execFileSync('mknod', ['-m', '666', file, 'c', '1', '3']);
  }
  return join(folder, 'nvidia');
}

function collect(child: ChildProcess): () => string {
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
  }
  return () => text;
}

async function within<T>(milliseconds: number, promise: Promise<T>, what: string, output: () => string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`waited ${milliseconds} ms in vain until ${what}\n${output()}`)),
      milliseconds,
    );
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function killNow(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // Gone already.
  }
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

function linkOrEmpty(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}
