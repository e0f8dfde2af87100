import { constants, readdirSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { AppError } from '../core/errors.ts';
import type { JobId } from '../core/job.ts';
import type { Paths } from './paths.ts';

/**
 * What the root parent keeps for a job beside its results. The folders are root's, so that no link can stand where a file is expected;
 * it is still opened as if one could.
 */
export interface JobFiles {
  /** The log so far; null before there is one. The caller closes it. */
  openLog(id: JobId): Promise<FileHandle | null>;
  /** The batch script as it was given to Slurm; null before it was. */
  openScript(id: JobId): Promise<FileHandle | null>;
}

export function createJobFiles(paths: Paths): JobFiles {
  return { openLog: (id) => openRegular(paths.log(id)), openScript: (id) => openRegular(paths.jobScript(id)) };
}

/** The highest id that ever had a folder; 0 when none had. Read once, at the start. */
export function highestJobFolder({ jobs }: Paths): JobId {
  return readdirSync(jobs).reduce(
    (highest, name) => (/^[1-9]\d{0,14}$/.test(name) ? Math.max(highest, Number(name)) : highest),
    0,
  );
}

async function openRegular(path: string): Promise<FileHandle | null> {
  let file: FileHandle;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return null;
    if (code === 'ELOOP') throw new AppError('forbidden', 'this file of the job is a link');
    throw error;
  }
  const stat = await file.stat();
  if (stat.isFile() && stat.nlink === 1) return file;
  await file.close();
  throw new AppError('forbidden', 'this file of the job is not a plain file');
}
