import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { AppError } from '../../core/errors.ts';
import type { Paths } from '../../storage/paths.ts';
import type { DataContext } from './data-context.ts';

/**
 * `staging/` belongs to the API's user, and root works in it. A path may therefore change under root's hands: every folder is opened
 * once without following links, and what is done in it goes through that open descriptor (`/proc/self/fd/N`), not through its name.
 */
const FOLDER = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;

export interface OpenFolder {
  readonly fd: number;
  /** A path that means this very folder, whatever its name is by now. */
  readonly at: string;
  close(): void;
}

export function openFolder(path: string): OpenFolder {
  const fd = openSync(path, FOLDER);
  return { fd, at: `/proc/self/fd/${fd}`, close: () => closeSync(fd) };
}

/** Opens `staging/<id>`. Throws AppError `not_found`. */
export function openStaging(ctx: DataContext, id: string): OpenFolder {
  const staging = openFolder(ctx.paths.staging);
  try {
    const folder = openFolder(`${staging.at}/${id}`);
    if (fstatSync(folder.fd).uid === ctx.apiUid) return folder;
    folder.close();
    throw new AppError('forbidden', "the staging folder is not the API's");
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === 'ENOENT'
      ? new AppError('not_found', 'no such staging folder')
      : error;
  } finally {
    staging.close();
  }
}

/** Makes `tree` for one user, closed to all others. */
export function makeTree(folder: OpenFolder, uid: number): OpenFolder {
  mkdirSync(`${folder.at}/tree`, 0o700);
  const tree = openFolder(`${folder.at}/tree`);
  fchownSync(tree.fd, uid, uid);
  return tree;
}

/** Gives the top folder to the API's user, who may then move it; everything below stays the dead user's, for all to read. */
export function handOver(ctx: DataContext, tree: OpenFolder): void {
  fchownSync(tree.fd, ctx.apiUid, ctx.apiGid);
  fchmodSync(tree.fd, 0o755);
}

export function realPath(folder: OpenFolder): string {
  return readlinkSync(folder.at);
}

/** Opens a file of the API's user for reading: a regular one, with one name, and no link. */
export function openUpload(ctx: DataContext, folder: OpenFolder): number {
  const fd = openSync(`${folder.at}/upload`, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const found = fstatSync(fd);
  if (found.isFile() && found.uid === ctx.apiUid && found.nlink === 1) return fd;
  closeSync(fd);
  throw new AppError('forbidden', "the upload is not a file of the API's");
}

/** Removes an entry of a folder with all that is in it. GNU rm goes by open descriptors and follows no link, also while somebody swaps them. */
export function removeBelow(folder: OpenFolder, name: string): Promise<void> {
  return run('/usr/bin/rm', ['-rf', '--one-file-system', '--', name], folder);
}

/** Returns when all that is written to the folder's file system is on the disk. */
export function syncFileSystem(folder: OpenFolder): Promise<void> {
  return run('/usr/bin/sync', ['-f', '.'], folder);
}

function run(program: string, argv: readonly string[], folder: OpenFolder): Promise<void> {
  return new Promise((resolve, reject) => {
    // The folder changes after fork, where the descriptor is still open: `/proc/self` is the child by then.
    const child = spawn(program, argv, { cwd: folder.at, env: {}, stdio: ['ignore', 'ignore', 'pipe'] });
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      if (stderr.length < 2000) stderr += text;
    });
    child.once('error', reject);
    child.once('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`${program} failed (${code}): ${stderr}`)),
    );
  });
}

/** A dataset vanishes at once, under a name that nobody looks at, before it is removed piece by piece. */
export function moveToStaging(ctx: DataContext, sha256: string): string | null {
  const datasets = openFolder(ctx.paths.datasets);
  const staging = openFolder(ctx.paths.staging);
  const tombstone = randomBytes(16).toString('hex');
  try {
    renameSync(`${datasets.at}/${sha256}`, `${staging.at}/${tombstone}`);
    return tombstone;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  } finally {
    datasets.close();
    staging.close();
  }
}

/** What the last life left behind: called as root before the API starts, when nothing works in `staging/`. */
export function emptyStaging(paths: Paths, owner: { readonly uid: number; readonly gid: number }): void {
  mkdirSync(paths.staging, { recursive: true });
  const staging = openFolder(paths.staging);
  try {
    for (const name of readdirSync(staging.at)) rmSync(`${staging.at}/${name}`, { recursive: true, force: true });
    fchownSync(staging.fd, owner.uid, owner.gid);
    fchmodSync(staging.fd, 0o711);
  } finally {
    staging.close();
  }
}
