import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  type Bucket,
  bucketOf,
  bucketPaths,
  escapedMount,
  fuseProblem,
  mountPlace,
  mountSource,
} from '../appliance/bucket.ts';
import type { Settings } from '../config.ts';

export interface BucketState {
  readonly mounted: boolean;
  /** Why it is not mounted, in words; null when it is, or when no bucket is wanted. */
  readonly problem: string | null;
}

export interface ProbeTiming {
  /** Between two looks at the list of mounts, which costs nothing. */
  readonly lookMs: number;
  /** Between two probes of a mount that answered: each is three HEAD and one LIST at the provider, who counts them. */
  readonly probeMs: number;
  /** Between two probes of one that did not. */
  readonly retryMs: number;
  readonly timeoutMs: number;
}
const DEFAULTS: ProbeTiming = { lookMs: 1000, probeMs: 20_000, retryMs: 4000, timeoutMs: 10_000 };

/**
 * Tells whether the bucket is there: the mount stands in the list of mounts and is ours, and a question through it is answered in time.
 * This process never touches the mount (four stuck calls would freeze all of Node's file access): `stat` does, and is killed when late.
 * `onChange` is called with the first state and whenever it differs. Returns how to stop.
 */
export function startBucketProbe(
  settings: Settings,
  root: string,
  onChange: (state: BucketState) => void,
  timing: ProbeTiming = DEFAULTS,
): () => void {
  const bucket = bucketOf(settings);
  let last: BucketState | null = null;
  const tell = (state: BucketState) => {
    if (last?.mounted === state.mounted && last.problem === state.problem) return;
    last = state;
    onChange(state);
  };
  if (bucket === null) {
    tell({ mounted: false, problem: null });
    return () => {};
  }
  let stopped = false;
  let timer: NodeJS.Timeout | undefined;
  let probing: ChildProcess | null = null;
  let mountId: string | null = null;
  let dueAt = 0;
  let everMounted = false;
  const down = (fallback: string) => tell({ mounted: false, problem: reasonInLog(bucket, root) ?? fallback });

  const look = () => {
    const found = findMount(bucket.mount, mountSource(root));
    if (found !== mountId) {
      // Gone, new, or another one in its place: nothing is known of it until it has answered.
      mountId = found;
      dueAt = 0;
      everMounted = true;
      if (found !== null) down('the bucket has just been mounted and has not answered yet');
    }
    if (found === null) down(everMounted ? 's3fs is not running' : 'it is being mounted');
    else if (probing === null && Date.now() >= dueAt) probe(found);
    timer = setTimeout(look, timing.lookMs);
  };

  const probe = (id: string) => {
    // A name that cannot exist: s3fs must ask the provider, and "no such file" is the good answer.
    const name = join(bucket.mount, `.jobrunner-probe-${randomBytes(8).toString('hex')}`);
    const child = spawn('stat', ['--', name], {
      cwd: '/',
      env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    probing = child;
    let text = '';
    let late = false;
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    const kill = setTimeout(() => {
      late = true;
      child.kill('SIGKILL');
      // Told now: a process that waits for a dead mount may not even die at once.
      if (!stopped) down(`the bucket did not answer within ${timing.timeoutMs / 1000} s`);
    }, timing.timeoutMs);
    const ended = (error: string | null) => {
      clearTimeout(kill);
      probing = null;
      if (stopped) return;
      const answered = error === null && !late && text.includes('No such file or directory');
      dueAt = Date.now() + (answered ? timing.probeMs : timing.retryMs);
      if (findMount(bucket.mount, mountSource(root)) !== id) return;
      if (answered) tell({ mounted: true, problem: null });
      else if (!late) down(error ?? `the mount fails: ${text.trim().split(': ').at(-1) || 'no reason given'}`);
    };
    child.on('error', (error) => ended(error.message));
    child.on('close', () => ended(null));
  };

  void fuseProblem().then((problem) => {
    if (stopped) return;
    const refused = problem ?? (existsSync('/usr/bin/s3fs') ? null : 's3fs is not installed');
    if (refused === null) look();
    else tell({ mounted: false, problem: refused });
  });
  return () => {
    stopped = true;
    clearTimeout(timer);
    probing?.kill('SIGKILL');
  };
}

/** The id of our mount at that place, or null; the topmost when several lie on each other. Reads /proc alone. */
export function findMount(mount: string, source: string): string | null {
  const wanted = escapedMount(mountPlace(mount));
  let found: string | null = null;
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    // proc(5): id, parent, device, root, mount point, options, optional fields, "-", type, source, super options.
    const [before = '', after = ''] = line.split(' - ');
    const [id = '', , , , place] = before.split(' ');
    if (place !== wanted) continue;
    const [type, from] = after.split(' ');
    found = type === 'fuse.s3fs' && from === escapedMount(source) ? id : null;
  }
  return found;
}

/** s3fs's own words for why its last life ended, from the end of its log, in ours. */
function reasonInLog(bucket: Bucket, root: string): string | null {
  const file = bucketPaths(root).logFile;
  let text: string;
  try {
    text = readFileSync(file, 'latin1');
  } catch {
    return null;
  }
  return problemIn(text, bucket);
}

/** Pure; reads only what the newest life of s3fs wrote. */
export function problemIn(log: string, bucket: Pick<Bucket, 'name' | 'endpoint' | 'mount'>): string | null {
  const life = log.slice(Math.max(0, log.lastIndexOf('[INF] s3fs version')));
  const name = bucket.name.split(':')[0] ?? bucket.name;
  const reasons: readonly (readonly [RegExp, string])[] = [
    [
      /invalid credentials|InvalidAccessKeyId|SignatureDoesNotMatch/,
      `the key is refused by ${bucket.endpoint}: check JR_B2_KEY_ID and JR_B2_APP_KEY`,
    ],
    [
      /bucket or key not found|NoSuchBucket/,
      `there is no bucket ${name} at ${bucket.endpoint}, or the key may not see it`,
    ],
    [/COULDNT_RESOLVE_HOST/, `the host of JR_B2_ENDPOINT ${bucket.endpoint} cannot be found`],
    [/unable to connect|COULDNT_CONNECT/, `${bucket.endpoint} cannot be reached`],
    [/OPERATION_TIMEDOUT|timeout was reached/i, `${bucket.endpoint} does not answer`],
    [/MOUNTPOINT directory .* is not empty|mountpoint is not empty/, `JR_B2_MOUNT ${bucket.mount} is not empty`],
    [/no enough disk space/i, 's3fs has too little free disk space for its temporary files'],
    [/fuse: mount failed|mount failed: Operation not permitted/, 'this container may not mount'],
  ];
  return reasons.find(([pattern]) => pattern.test(life))?.[1] ?? null;
}
