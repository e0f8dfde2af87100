import { realpathSync } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { ConfigError, type Settings } from '../config.ts';
import { pathsIn } from '../storage/paths.ts';

/**
 * The bucket as a service: `s3fs -f` under the supervisor. What shapes it (all tried):
 * - s3fs's exit code lies (a wrong key and a missing bucket both give 0), the reason stands in its log only, so the log is kept to be read.
 * - An s3fs that was killed leaves a mount on which everything fails with ENOTCONN until it is unmounted.
 * - Its failures are nobody else's: this service never ends the appliance, it waits longer and longer between attempts.
 */
export interface Bucket {
  /** `name` or `name:/prefix`. */
  readonly name: string;
  readonly endpoint: string;
  readonly keyId: string;
  readonly appKey: string;
  readonly mount: string;
}

/** The bucket that the settings ask for, or null. Throws ConfigError when they ask for one and leave something out. */
export function bucketOf(settings: Settings): Bucket | null {
  if (!settings.JR_B2_ENABLE) return null;
  const needed = <T>(name: string, value: T | null): T => {
    if (value === null) throw new ConfigError(`${name} must be set when JR_B2_ENABLE is 1`);
    return value;
  };
  const appKey = needed('JR_B2_APP_KEY', settings.JR_B2_APP_KEY);
  if (appKey.includes(':')) throw new ConfigError('JR_B2_APP_KEY must not contain ":" (s3fs cannot read such a key)');
  if (settings.JR_B2_MOUNT === '/') throw new ConfigError('JR_B2_MOUNT must not be / itself');
  return {
    name: needed('JR_B2_BUCKET', settings.JR_B2_BUCKET),
    endpoint: settings.JR_B2_ENDPOINT,
    keyId: needed('JR_B2_KEY_ID', settings.JR_B2_KEY_ID),
    appKey,
    mount: settings.JR_B2_MOUNT.replace(/\/+$/, ''),
  };
}

/** Where the bucket's own files are: below `run/`, which only root writes. */
export function bucketPaths(root: string) {
  const home = join(pathsIn(root).run, 'bucket');
  return {
    home,
    password: join(home, 'passwd'),
    temporary: join(home, 'tmp'),
    failures: join(home, 'failures'),
    started: join(home, 'started'),
    log: join(home, 'log'),
    logFile: join(home, 'log', 'current'),
  } as const;
}

/** The mount's source in /proc/self/mounts: tells our mount from another's at the same place. */
export const mountSource = (root: string): string => `jobrunner:${root}`;

const CAP_SYS_ADMIN = 21n;

/** Why FUSE cannot work here, in words, or null. Rented containers have neither the right nor the device. */
export async function fuseProblem(): Promise<string | null> {
  const status = await readFile('/proc/self/status', 'utf8');
  const capabilities = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? '0'}`);
  if (((capabilities >> CAP_SYS_ADMIN) & 1n) === 0n)
    return 'this container may not mount (no CAP_SYS_ADMIN): run it with --privileged, or with --cap-add SYS_ADMIN --device /dev/fuse';
  try {
    await (await open('/dev/fuse', 'r+')).close();
  } catch (error) {
    return `/dev/fuse cannot be opened (${(error as NodeJS.ErrnoException).code}): run the container with --privileged or --device /dev/fuse`;
  }
  return null;
}

/** Where the kernel says the mount is: links on the way are followed, the mount itself is not touched. */
export function mountPlace(mount: string): string {
  try {
    return join(realpathSync(dirname(mount)), basename(mount));
  } catch {
    return mount;
  }
}

/** A path as /proc/self/mounts writes it. */
export function escapedMount(path: string): string {
  return path.replace(/[ \t\n\\]/g, (character) => `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`);
}
