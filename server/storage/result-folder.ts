import { constants } from 'node:fs';
import { type FileHandle, open, readlink } from 'node:fs/promises';
import { AppError } from '../core/errors.ts';
import type { JobId } from '../core/job.ts';
import { parseRelPath } from '../core/output.ts';

/**
 * Whatever lies in a result folder was put there by a stranger's program that may still run and change it between any two of our
 * steps. So nothing is decided about a *path*: it is opened, and what was opened is looked at.
 *
 * `O_PATH` (open(2)) takes hold of a file without opening it: no FIFO blocks, no device is woken, no right is needed. The descriptor
 * then tells what it is (fstat) and where it lies (its name in /proc/self/fd, which the kernel writes: a link in *any* part of the
 * path shows there). Only what passes is opened for reading, through the descriptor and not by name again.
 */
const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK, O_NOCTTY, O_DIRECTORY } = constants;
/** Linux' own number on every architecture that Node runs on (asm-generic/fcntl.h); Node does not name it. */
const O_PATH = 0o10000000;

/** Where the result folders of all jobs are, and whose files may be served. */
export interface ResultRoot {
  /** JR_ROOT/results with every link resolved, once, at start: jobs cannot move it. */
  readonly folder: string;
  readonly submitUid: number;
}

export interface OpenedFile {
  readonly handle: FileHandle;
  readonly bytes: number;
  readonly mtimeMs: number;
}

/** For tests: called between taking hold of a file and looking at it, and between looking and opening. */
export type Interruption = (step: 'held' | 'checked') => Promise<void> | void;

/**
 * Opens a regular file of the submit user that has one name and lies in the job's result folder. The caller closes it.
 * Throws `invalid` (a path that leads outside), `not_found`, `forbidden` (anything else that lies there, with what it is).
 */
export function openResultFile(
  root: ResultRoot,
  jobId: JobId,
  relPath: string,
  interruption?: Interruption,
): Promise<OpenedFile> {
  return withHeld(root, jobId, relPath, interruption, async (held, path) => {
    const handle = await take(`/proc/self/fd/${held.fd}`, O_RDONLY | O_NONBLOCK | O_NOCTTY, jobId, path);
    const { size, mtimeMs } = await handle.stat();
    return { handle, bytes: size, mtimeMs };
  });
}

/** The same checks without opening it; throws the same. Returns its size in bytes. */
export function sizeOfResultFile(root: ResultRoot, jobId: JobId, relPath: string): Promise<number> {
  return withHeld(root, jobId, relPath, undefined, async (held) => (await held.stat()).size);
}

async function withHeld<T>(
  root: ResultRoot,
  jobId: JobId,
  relPath: string,
  interruption: Interruption | undefined,
  use: (held: FileHandle, path: string) => Promise<T>,
): Promise<T> {
  const parsed = parseRelPath(relPath);
  if ('fault' in parsed) {
    throw new AppError('invalid', `the path ${parsed.fault}`, {
      fields: [{ field: 'rel_path', message: parsed.fault }],
    });
  }
  const expected = `${root.folder}/${jobId}/${parsed.path}`;
  const held = await take(expected, O_PATH | O_NOFOLLOW, jobId, parsed.path);
  try {
    await interruption?.('held');
    await refuseUnlessServable(root, held, expected, parsed.path);
    await interruption?.('checked');
    return await use(held, parsed.path);
  } finally {
    await held.close();
  }
}

async function refuseUnlessServable(root: ResultRoot, held: FileHandle, expected: string, path: string): Promise<void> {
  const stat = await held.stat();
  const fault = faultOfFile(stat, root.submitUid);
  if (fault !== null) throw new AppError('forbidden', `"${path}" ${fault}; only regular files of the job are served`);
  if (!(await liesAt(held, expected))) {
    throw new AppError('forbidden', `"${path}" leads out of the job's result folder through a symbolic link`);
  }
}

export interface FileFacts {
  isFile(): boolean;
  isSymbolicLink(): boolean;
  isDirectory(): boolean;
  readonly uid: number;
  readonly nlink: number;
}

/** Why a thing in a result folder is not served; null for an ordinary file. A second name may belong to a file from elsewhere. */
export function faultOfFile(stat: FileFacts, submitUid: number): string | null {
  if (stat.isSymbolicLink()) return 'is a symbolic link';
  if (stat.isDirectory()) return 'is a folder';
  if (!stat.isFile()) return 'is no regular file';
  if (stat.uid !== submitUid) return 'does not belong to the user that jobs run as';
  if (stat.nlink !== 1) return stat.nlink === 0 ? 'is being removed' : 'has several names (hard links)';
  return null;
}

/** Compared as bytes: a name that is no UTF-8 must not pass for one that looks like it. */
async function liesAt(held: FileHandle, expected: string): Promise<boolean> {
  const actual = await readlink(`/proc/self/fd/${held.fd}`, { encoding: 'buffer' });
  return actual.equals(Buffer.from(expected));
}

/**
 * Opens a folder inside the result folder (`''` is the result folder itself) such that it stays the one that was checked, whatever is
 * renamed meanwhile: list it as `/proc/self/fd/<fd>`. Null when it is no folder, lies elsewhere or cannot be opened.
 */
export async function openResultDirectory(root: ResultRoot, jobId: JobId, path: string): Promise<FileHandle | null> {
  const expected = path === '' ? `${root.folder}/${jobId}` : `${root.folder}/${jobId}/${path}`;
  const handle = await open(expected, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK).catch(() => null);
  if (handle === null) return null;
  const inside = await liesAt(handle, expected).catch(() => false);
  if (inside) return handle;
  await handle.close();
  return null;
}

async function take(path: string, flags: number, jobId: JobId, shown: string): Promise<FileHandle> {
  try {
    return await open(path, flags);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') {
      throw new AppError('not_found', `job ${jobId} has no file "${shown}"`, { cause: error });
    }
    if (code === 'EACCES' || code === 'EPERM') {
      throw new AppError('forbidden', `"${shown}" cannot be read: the job made it unreadable for its group`, {
        cause: error,
      });
    }
    if (code === 'ELOOP' || code === 'ENAMETOOLONG') {
      throw new AppError('forbidden', `"${shown}" leads through too many links, or its path is too long`, {
        cause: error,
      });
    }
    if (code === 'EMFILE' || code === 'ENFILE')
      throw new AppError('unavailable', 'too many files are open; try again', { cause: error });
    throw error;
  }
}
