import type { Dirent } from 'node:fs';
import { chmod, mkdir, open, readdir, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Dataset } from '../core/dataset.ts';
import type { Paths } from './paths.ts';
import type { Staging } from './staging.ts';

const SHA256 = /^[0-9a-f]{64}$/;

/** Turns an uploaded file into a tree of one file that everybody may read, and brings it to the disk. */
export async function treeOfOneFile(staging: Staging, name: string): Promise<void> {
  await mkdir(staging.tree, { mode: 0o755 });
  const file = join(staging.tree, name);
  await rename(staging.upload, file);
  await chmod(file, 0o644);
  await sync(file);
  await sync(staging.tree);
}

/**
 * Publishes a tree as `datasets/<sha256>`: from one moment to the next it is there, whole. Answers false when it was there already.
 */
export async function publish(paths: Paths, staging: Staging, sha256: string): Promise<boolean> {
  try {
    await rename(staging.tree, paths.dataset(sha256));
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOTEMPTY' || code === 'EEXIST') return false;
    throw error;
  }
  await sync(paths.datasets);
  return true;
}

/** The addresses that are there as folders. */
export async function datasetsOnDisk(paths: Paths): Promise<ReadonlySet<string>> {
  const found = await readdir(paths.datasets, { withFileTypes: true });
  return new Set(found.filter((entry) => entry.isDirectory() && SHA256.test(entry.name)).map((entry) => entry.name));
}

/**
 * Makes out from the folder alone what is stored there: for a dataset whose record a crash prevented. A single file is told from an
 * archive of one file by its owner, who is the API's user and not one of the unpackers'. The archive's name is not known any more.
 */
export async function measure(paths: Paths, sha256: string): Promise<Dataset> {
  const folder = paths.dataset(sha256);
  const top = await readdir(folder, { withFileTypes: true });
  const { ctimeMs } = await stat(folder);
  const [only] = top;
  if (top.length === 1 && only?.isFile()) {
    const found = await stat(join(folder, only.name));
    if (found.uid === process.getuid?.()) {
      const record = {
        sha256,
        relPath: `datasets/${sha256}/${only.name}`,
        bytes: found.size,
        files: 1,
        name: only.name,
      };
      return { ...record, createdAt: Math.floor(ctimeMs) };
    }
  }
  const { bytes, files } = await sum(folder, top);
  return { sha256, relPath: `datasets/${sha256}`, bytes, files, name: sha256, createdAt: Math.floor(ctimeMs) };
}

async function sum(folder: string, entries: readonly Dirent[]): Promise<{ bytes: number; files: number }> {
  let bytes = 0;
  let files = 0;
  // Hard links within an archive are counted as the unpacker counted them: each is a file, the bytes are there once.
  const seen = new Set<number>();
  const folders: { path: string; entries: readonly Dirent[] }[] = [{ path: folder, entries }];
  for (let next = folders.pop(); next !== undefined; next = folders.pop()) {
    for (const entry of next.entries) {
      const path = join(next.path, entry.name);
      if (entry.isDirectory()) folders.push({ path, entries: await readdir(path, { withFileTypes: true }) });
      else if (entry.isFile()) {
        const found = await stat(path);
        files += 1;
        if (found.nlink === 1 || !seen.has(found.ino)) bytes += found.size;
        if (found.nlink > 1) seen.add(found.ino);
      }
    }
  }
  return { bytes, files };
}

async function sync(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
