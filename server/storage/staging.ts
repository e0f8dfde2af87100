import { randomBytes } from 'node:crypto';
import { mkdir, rm, statfs } from 'node:fs/promises';
import { AppError } from '../core/errors.ts';
import type { Paths } from './paths.ts';

/** A place for one upload. Nothing in it is visible to anybody else, and what is in it at a start is removed. */
export interface Staging {
  readonly id: string;
  readonly upload: string;
  readonly tree: string;
}

export async function makeStaging(paths: Paths): Promise<Staging> {
  const id = randomBytes(16).toString('hex');
  await mkdir(paths.stagingFolder(id), { mode: 0o711 });
  return { id, upload: paths.stagingUpload(id), tree: paths.stagingTree(id) };
}

/** Removes a staging folder that holds only what is ours; answers false when something of another user is in it. */
export async function removeStaging(paths: Paths, staging: Staging): Promise<boolean> {
  try {
    await rm(paths.stagingFolder(staging.id), { recursive: true, force: true });
    return true;
  } catch {
    return false;
  }
}

/** Throws `out_of_space` when `coming` more bytes would leave less than `minFreeBytes`. */
export async function checkSpace(paths: Paths, coming: number, minFreeBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(paths.staging);
  if (bavail * bsize - coming >= minFreeBytes) return;
  throw new AppError(
    'out_of_space',
    `there is not enough space: ${Math.max(0, bavail * bsize - minFreeBytes)} bytes can be taken, and ${minFreeBytes} must stay free (JR_MIN_FREE_BYTES)`,
  );
}
