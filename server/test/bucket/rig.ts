import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { type Bucket, bucketOf } from '../../appliance/bucket.ts';
import { prepareBucket } from '../../appliance/bucket-service.ts';
import { readSettings, type Settings } from '../../config.ts';
import { type BucketState, startBucketProbe } from '../../parent/bucket-probe.ts';

export const S3RVER_KEY = 'S3RVER';

export async function until<T>(
  what: string,
  seconds: number,
  look: () => T | null | undefined | false | Promise<T | null | undefined | false>,
): Promise<T> {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) assert.fail(`not within ${seconds} s: ${what}`);
    await pause(50);
  }
}

export interface S3 {
  readonly endpoint: string;
  readonly process: ChildProcess;
  stop(): Promise<void>;
}

export async function startS3(folder: string, ...buckets: string[]): Promise<S3> {
  const child = spawn(process.execPath, [join(import.meta.dirname, 's3-server.mjs'), '0', folder, ...buckets], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [port] = await once(createInterface(child.stdout), 'line');
  return {
    endpoint: `http://127.0.0.1:${port}`,
    process: child,
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = once(child, 'exit');
      child.kill('SIGCONT');
      child.kill('SIGKILL');
      await gone;
    },
  };
}

export interface Rig {
  readonly root: string;
  readonly mount: string;
  readonly bucket: Bucket;
  readonly states: BucketState[];
  /** What the supervised services wrote to the appliance's output. */
  readonly output: () => string;
  readonly state: () => BucketState | undefined;
  readonly s3fsPid: () => number | null;
  stop(): Promise<void>;
  /** As a power cut ends it: the supervisors and the logger die at once; s3fs itself lives on. */
  kill(): Promise<void>;
}

/** A bucket service as an appliance runs it: prepared, under s6-svscan, probed (with shorter times). `name` goes into all paths. */
export async function startBucket(options: {
  readonly endpoint: string;
  readonly bucket?: string;
  readonly keyId?: string;
  readonly folder: string;
}): Promise<Rig> {
  const root = join(options.folder, 'root');
  const mount = join(options.folder, 'mount');
  const settings: Settings = readSettings({
    JR_B2_ENABLE: '1',
    JR_B2_BUCKET: options.bucket ?? 'data',
    JR_B2_ENDPOINT: options.endpoint,
    JR_B2_KEY_ID: options.keyId ?? S3RVER_KEY,
    JR_B2_APP_KEY: S3RVER_KEY,
    JR_B2_MOUNT: mount,
  }).settings;
  const bucket = bucketOf(settings);
  assert.ok(bucket);
  const prepared = await prepareBucket(bucket, {
    root,
    uid: 65534,
    gid: 65534,
    s3fsVersion: s3fsVersion(),
    minFreeMiB: 64,
  });
  assert.ok('files' in prepared, 'problem' in prepared ? prepared.problem : '');
  const scan = join(root, 'run', 'service');
  for (const [path, { text, executable }] of Object.entries(prepared.files)) {
    await mkdir(dirname(join(scan, 'bucket', path)), { recursive: true });
    await writeFile(join(scan, 'bucket', path), text);
    if (executable) await chmod(join(scan, 'bucket', path), 0o755);
  }
  const supervisor = spawn('s6-svscan', [scan], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [supervisor.stdout, supervisor.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  const states: BucketState[] = [];
  const stopProbe = startBucketProbe(settings, root, (state) => states.push(state), {
    lookMs: 100,
    probeMs: 500,
    retryMs: 300,
    timeoutMs: 1500,
  });
  return {
    root,
    mount,
    bucket,
    states,
    output: () => output,
    state: () => states.at(-1),
    s3fsPid: () => childOf('s3fs', mount),
    async stop() {
      stopProbe();
      const gone = once(supervisor, 'exit');
      execFileSync('s6-svscanctl', ['-t', scan]);
      await gone;
    },
    async kill() {
      stopProbe();
      const children = execFileSync('ps', ['-o', 'pid=', '--ppid', String(supervisor.pid)], { encoding: 'utf8' });
      const gone = once(supervisor, 'exit');
      supervisor.kill('SIGKILL');
      for (const pid of children.trim().split(/\s+/).map(Number)) process.kill(pid, 'SIGKILL');
      await gone;
    },
  };
}

export const s3fsVersion = (): string | null => {
  if (!existsSync('/usr/bin/s3fs')) return null;
  return execFileSync('s3fs', ['--version'], { encoding: 'utf8' }).split('\n')[0] ?? null;
};

/** The process whose command line has the name and the argument. */
export function childOf(name: string, argument: string): number | null {
  const lines = execFileSync('ps', ['-eo', 'pid=,args=', '-ww'], { encoding: 'utf8' }).split('\n');
  const line = lines.find((text) => new RegExp(`^\\s*\\d+ ${name} `).test(text) && text.includes(argument));
  return line === undefined ? null : Number.parseInt(line, 10);
}

export async function folderFor(name: string): Promise<{ readonly path: string; remove(): Promise<void> }> {
  const path = await mkdtemp(join('/tmp', `jr-bucket-${name}-`));
  await chmod(path, 0o755);
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}

export const mounts = (): Promise<string> => readFile('/proc/self/mounts', 'utf8');
