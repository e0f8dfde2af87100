import { chmod, lstat, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { quote } from 'shell-quote';
import { type Bucket, bucketPaths, escapedMount, fuseProblem, mountPlace, mountSource } from './bucket.ts';
import { type ApplianceFacts, runPaths } from './facts.ts';

/** Whose the files in the mount are, and what else the mount depends on. */
export interface BucketHost {
  readonly root: string;
  /** The submit user's. */
  readonly uid: number;
  readonly gid: number;
  /** As `s3fs --version` tells it; null: not installed. */
  readonly s3fsVersion: string | null;
  readonly minFreeMiB: number;
}

/** Makes the bucket's service, or says why it cannot be: the appliance starts all the same. */
export async function addBucketService(
  bucket: Bucket,
  { root, submit }: Pick<ApplianceFacts, 'root' | 'submit'>,
  minFreeBytes: number,
  say: (line: string) => void,
): Promise<void> {
  const prepared = await prepareBucket(bucket, {
    root,
    uid: submit.uid,
    gid: submit.gid,
    s3fsVersion: await installedS3fs(),
    minFreeMiB: Math.ceil(minFreeBytes / 1_048_576),
  });
  if ('problem' in prepared) {
    say(`the bucket is not mounted: ${prepared.problem}`);
    return;
  }
  const folder = join(runPaths(root).services, 'bucket');
  for (const [path, { text, executable }] of Object.entries(prepared.files)) {
    const file = join(folder, path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, text, { mode: executable ? 0o755 : 0o644 });
  }
}

/** What `s3fs --version` says, or null. */
async function installedS3fs(): Promise<string | null> {
  const { exitCode, stdout } = await execa('s3fs', ['--version'], { reject: false, timeout: 5000 });
  return exitCode === 0 ? String(stdout) : null;
}

/**
 * Makes the passwd file (0600; the keys stand nowhere else), the folders and a mount point that nobody can write into while nothing is
 * mounted there. Returns the service's files, or why there can be no service; then the appliance runs without it.
 */
export async function prepareBucket(
  bucket: Bucket,
  at: BucketHost,
): Promise<{ readonly files: ServiceFiles } | { readonly problem: string }> {
  const paths = bucketPaths(at.root);
  await mkdir(paths.temporary, { recursive: true, mode: 0o700 });
  await writeFile(paths.password, `${bucket.keyId}:${bucket.appKey}\n`, { mode: 0o600 });
  await chmod(paths.password, 0o600);
  await writeFile(paths.failures, '0\n');
  const problem =
    at.s3fsVersion === null
      ? 's3fs is not installed'
      : ((await fuseProblem()) ?? (await mountPointProblem(bucket.mount)));
  if (problem !== null) return { problem };
  return { files: bucketService(bucket, at) };
}

async function mountPointProblem(mount: string): Promise<string | null> {
  // A mount that is there already (ours of before, dead or alive) is the run script's to judge: whoever looks into a dead one may hang.
  const mounts = await readFile('/proc/self/mounts', 'utf8');
  if (mounts.split('\n').some((line) => line.split(' ')[1] === escapedMount(mountPlace(mount)))) return null;
  await mkdir(mount, { recursive: true });
  const found = await lstat(mount);
  if (!found.isDirectory()) return `JR_B2_MOUNT ${mount} is not a folder`;
  if ((await readdir(mount)).length > 0) return `JR_B2_MOUNT ${mount} is not empty`;
  // While nothing is mounted, a copy to the mount point must fail, not fill the local disk.
  if (found.uid === 0) await chmod(mount, 0o000);
  return null;
}

/** Files of an s6 service folder, by relative path; `executable` ones are scripts. */
export type ServiceFiles = Readonly<Record<string, { readonly text: string; readonly executable: boolean }>>;

export function bucketService(bucket: Bucket, at: BucketHost): ServiceFiles {
  const paths = bucketPaths(at.root);
  const script = (lines: readonly string[]) => ({ text: `${['#!/bin/sh', ...lines].join('\n')}\n`, executable: true });
  return {
    run: script([
      '# Waits before an attempt that follows failures; a stop ends the wait.',
      `read -r failures < ${quote([paths.failures])} || failures=0`,
      'delay=$(( failures == 0 ? 0 : failures > 5 ? 60 : 1 << failures ))',
      `if [ "$delay" -gt 0 ]; then sleep "$delay" & nap=$!; trap 'kill $nap; exit 0' TERM INT; wait "$nap"; trap - TERM INT; fi`,
      unmountDead(bucket, at.root),
      `: > ${quote([paths.started])}`,
      'cd / && exec 2>&1',
      `exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C ${quote(['s3fs', ...s3fsArguments(bucket, at)])}`,
    ]),
    finish: script([
      '# s3fs says 0 whatever happened: only a life of a minute counts as success.',
      `read -r failures < ${quote([paths.failures])} || failures=0`,
      `if [ -n "$(find ${quote([paths.started])} -mmin -1)" ]; then failures=$((failures + 1)); else failures=0; fi`,
      `echo "$failures" > ${quote([paths.failures])}`,
      unmountDead(bucket, at.root),
      'exit 0',
    ]),
    // Milliseconds: a stop is given this long (SIGTERM unmounts cleanly, unless the backend hangs), then SIGKILL.
    'timeout-kill': { text: '4000\n', executable: false },
    'timeout-finish': { text: '8000\n', executable: false },
    // To the appliance's own output and into a small file of which the probe reads the reasons. Bodies of errors repeat the key id.
    'log/run': script([`exec s6-log -- -AWSAccessKeyId 1 n1 s65536 ${quote([paths.log])}`]),
  };
}

/**
 * A mount of ours that is there before our s3fs starts, or after it ended, is a leaving of a dead life: seen in the list of mounts, so that
 * nothing hangs. Of another's, only one that answers ENOTCONN is taken away: its server is gone.
 */
function unmountDead(bucket: Bucket, root: string): string {
  const path = quote([bucket.mount]);
  const line = quote([`${escapedMount(mountSource(root))} ${escapedMount(mountPlace(bucket.mount))} fuse.s3fs `]);
  return [
    `for try in 1 2 3; do if grep -qF ${line} /proc/self/mounts; then umount -l -- ${path}; fi; done`,
    `if LC_ALL=C timeout -s KILL 3 stat -- ${path} 2>&1 >/dev/null | grep -q 'not connected'; then umount -l -- ${path}; fi`,
  ].join('\n');
}

export function s3fsArguments(bucket: Bucket, at: BucketHost): readonly string[] {
  const paths = bucketPaths(at.root);
  const region = regionOf(bucket.endpoint);
  const options: readonly string[] = [
    `url=${bucket.endpoint}`,
    // Renamed in 1.96 (s3fs's ChangeLog).
    versionAtLeast(at.s3fsVersion, 1, 96) ? `region=${region}` : `endpoint=${region}`,
    // Without it s3fs retries by SigV2 after a 403, which only hides the reason. Backblaze wants path style.
    'sigv4',
    'use_path_request_style',
    `passwd_file=${paths.password}`,
    // Folders that other tools made by key alone would else be root's and closed to jobs.
    'allow_other',
    `uid=${at.uid}`,
    `gid=${at.gid}`,
    'umask=0022',
    'mp_umask=0022',
    'retries=3',
    'connect_timeout=10',
    'readwrite_timeout=30',
    'multipart_size=64',
    'parallel_count=8',
    `ensure_diskfree=${at.minFreeMiB}`,
    `tmpdir=${paths.temporary}`,
    'stat_cache_expire=60',
    'nosuid',
    'nodev',
    'dbglevel=warn',
    `fsname=${mountSource(at.root)}`,
    'subtype=s3fs',
  ];
  // libfuse reads a comma as the next option unless a backslash stands before it (fuse_opt.c).
  return [bucket.name, bucket.mount, '-f', '-o', options.map((option) => option.replace(/[\\,]/g, '\\$&')).join(',')];
}

/** Region of an endpoint as SigV4 signs it: the label after `s3` of Backblaze's and Amazon's hosts, else what most others accept. */
export function regionOf(endpoint: string): string {
  return /^https?:\/\/s3[.-]([a-z]{2}-[a-z0-9-]+)\./.exec(endpoint)?.[1] ?? 'us-east-1';
}

function versionAtLeast(version: string | null, major: number, minor: number): boolean {
  const [, a, b] = /(\d+)\.(\d+)/.exec(version ?? '') ?? [];
  return Number(a) > major || (Number(a) === major && Number(b) >= minor);
}
