import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fchownSync,
  lstatSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { pathsIn } from '../storage/paths.ts';
import { runPaths } from './facts.ts';
import { StartError } from './fault.ts';
import type { ServiceUsers } from './users.ts';

/** Makes JR_ROOT as `storage/paths.ts` draws it; owners and modes are put right at every start. */
export function ensureTree(root: string, { api, submit, slurm, munge }: ServiceUsers): void {
  const paths = pathsIn(root);
  const run = runPaths(root);
  const folders: readonly (readonly [path: string, uid: number, gid: number, mode: number])[] = [
    [root, 0, api.gid, 0o1771],
    [paths.datasets, api.uid, submit.gid, 0o2750],
    [paths.staging, api.uid, api.gid, 0o711],
    [paths.jobs, 0, 0, 0o755],
    [paths.results, 0, 0, 0o755],
    [paths.logs, 0, 0, 0o755],
    [paths.witness, submit.uid, api.gid, 0o2770],
    [paths.templates, 0, 0, 0o755],
    [paths.slurm, 0, 0, 0o755],
    [join(paths.slurm, 'etc'), 0, 0, 0o755],
    [join(paths.slurm, 'munge'), munge.uid, munge.gid, 0o700],
    [join(paths.slurm, 'events'), slurm.uid, api.gid, 0o2750],
    [paths.slurmState, slurm.uid, slurm.gid, 0o700],
    [paths.slurmSpool, 0, 0, 0o755],
    [paths.slurmLogs, 0, 0, 0o755],
    [paths.run, 0, 0, 0o755],
    [run.state, 0, 0, 0o755],
    [run.munge, munge.uid, munge.gid, 0o755],
    [join(paths.run, 'slurmctld'), slurm.uid, slurm.gid, 0o755],
    [join(paths.run, 'slurmd'), 0, 0, 0o755],
  ];
  adoptNumbers(root, { api, submit });
  for (const [path, uid, gid, mode] of folders) ensureFolder(path, uid, gid, mode);
  ensureFile(paths.jobCompletion, slurm.uid, api.gid, 0o640);
  // SQLite gives its other files the mode of this one.
  ensureFile(paths.database, api.uid, api.gid, 0o600);
  for (const file of [`${paths.database}-wal`, `${paths.database}-shm`, paths.token]) {
    if (existsSync(file)) ensureFile(file, api.uid, api.gid, 0o600);
  }
}

/**
 * A volume that another machine or image used may know our users under other numbers: everything of theirs gets today's. `-h`: what a
 * job left may be links; they are never followed (nor does `-R` by default).
 */
function adoptNumbers(root: string, { api, submit }: Pick<ServiceUsers, 'api' | 'submit'>): void {
  const paths = pathsIn(root);
  const oldApi = ownerOf(paths.datasets);
  const oldSubmit = ownerOf(paths.witness);
  const give = (from: number, to: string, folders: readonly string[]) => {
    const present = folders.filter((folder) => existsSync(folder));
    execFileSync('chown', ['-Rh', `--from=${from}`, to, '--', ...present], { stdio: 'ignore' });
  };
  if (oldApi !== null && oldApi !== api.uid) give(oldApi, `${api.uid}:${submit.gid}`, [paths.datasets]);
  if (oldSubmit !== null && oldSubmit !== submit.uid) {
    give(oldSubmit, `${submit.uid}:${api.gid}`, [paths.results, paths.logs, paths.witness, paths.jobs]);
  }
}

function ownerOf(path: string): number | null {
  return existsSync(path) ? lstatSync(path).uid : null;
}

function ensureFolder(path: string, uid: number, gid: number, mode: number): void {
  mkdirSync(path, { recursive: true });
  if (!lstatSync(path).isDirectory()) throw new StartError(`${path} must be a folder, not a link or a file`);
  chownSync(path, uid, gid);
  chmodSync(path, mode);
}

/** Makes the file when it is absent and sets owner and mode on what was opened: a link in its place is refused. */
function ensureFile(path: string, uid: number, gid: number, mode: number): void {
  const descriptor = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW, mode);
  fchownSync(descriptor, uid, gid);
  fchmodSync(descriptor, mode);
  closeSync(descriptor);
}

/** Writes a file that nobody may read before it has its owner and mode. */
export function writeSecret(path: string, content: string | Buffer, uid: number, gid: number, mode: number): void {
  const temporary = `${path}.new`;
  rmSync(temporary, { force: true });
  const descriptor = openSync(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
  writeSync(descriptor, Buffer.from(content));
  fchownSync(descriptor, uid, gid);
  fchmodSync(descriptor, mode);
  closeSync(descriptor);
  renameSync(temporary, path);
}
