import type { Stats } from 'node:fs';
import { lstat, opendir } from 'node:fs/promises';
import type { JobId } from '../core/job.ts';
import { type FoundFile, PATH_LIMITS, type Skipped } from '../core/output.ts';
import { faultOfFile, openResultDirectory, type ResultRoot } from './result-folder.ts';

export interface WalkLimits {
  /** Things looked at, whatever they are. */
  readonly entries: number;
  readonly milliseconds: number;
}

export const WALK_LIMITS: WalkLimits = { entries: 100_000, milliseconds: 60_000 };

export interface Found {
  readonly files: readonly FoundFile[];
  /** The first of what was left out; `skippedCount` counts all of it. */
  readonly skipped: readonly Skipped[];
  readonly skippedCount: number;
}

/** So many are told one by one. */
export const SKIPPED_SHOWN = 100;
const BATCH = 64;

/**
 * Every regular file of the job, found without following a link. What lies there may be hostile, and may change meanwhile: strange
 * things are skipped and counted, never an error; entries, depth and time are bounded, and a folder that is over says so in `skipped`.
 * Works in small batches, so that no other request waits.
 */
export async function walkResultFolder(
  root: ResultRoot,
  jobId: JobId,
  limits: WalkLimits = WALK_LIMITS,
): Promise<Found> {
  const files: FoundFile[] = [];
  const skipped: Skipped[] = [];
  let skippedCount = 0;
  const skip = (path: string, reason: string) => {
    skippedCount += 1;
    if (skipped.length < SKIPPED_SHOWN) skipped.push({ path: shortened(path), reason });
  };
  const deadline = performance.now() + limits.milliseconds;
  const overdue = () =>
    performance.now() > deadline ? `looking took more than ${limits.milliseconds / 1000} s` : null;
  let left = limits.entries;
  const folders = [''];
  for (let folder = folders.shift(); folder !== undefined; folder = folders.shift()) {
    for await (const batch of batchesOf(root, jobId, folder)) {
      const over = left === 0 ? `there are more than the ${limits.entries} entries that are looked at` : overdue();
      if (over !== null) {
        skip('', `${over}: the rest is left out`);
        return { files, skipped, skippedCount };
      }
      const wanted = batch.slice(0, left);
      left -= wanted.length;
      for (const looked of await Promise.all(wanted.map((entry) => look(root, entry)))) {
        if ('fault' in looked) skip(looked.path, looked.fault);
        else if (looked.stat.isDirectory()) folders.push(looked.path);
        else files.push({ path: looked.path, bytes: looked.stat.size });
      }
    }
  }
  return { files, skipped, skippedCount };
}

interface Entry {
  readonly path: string;
  /** Through the open folder's descriptor; absent where there is nothing to look at, for the reason given. */
  readonly via?: string;
  readonly fault?: string;
}

/** The entries of one folder, some at a time. The folder stays open, and is the one that was checked, until the last is taken. */
async function* batchesOf(root: ResultRoot, jobId: JobId, folder: string): AsyncGenerator<readonly Entry[]> {
  const handle = await openResultDirectory(root, jobId, folder);
  const via = `/proc/self/fd/${handle?.fd}`;
  try {
    // `opendir` and not `readdir`: a folder with a million names must not become one array.
    const names = handle === null ? null : await opendir(via, { encoding: 'buffer' as 'utf8', bufferSize: BATCH });
    if (names === null) {
      yield [{ path: folder, fault: 'is a folder that cannot be opened' }];
      return;
    }
    let batch: Entry[] = [];
    for await (const { name } of names) {
      batch.push(entryOf(folder, name as unknown as Buffer, via));
      if (batch.length < BATCH) continue;
      yield batch;
      batch = [];
    }
    if (batch.length > 0) yield batch;
  } finally {
    await handle?.close();
  }
}

function entryOf(folder: string, name: Buffer, via: string): Entry {
  const text = utf8(name);
  const path = folder === '' ? (text ?? String(name)) : `${folder}/${text ?? String(name)}`;
  if (text === null) return { path, fault: 'has a name that is not UTF-8' };
  if (Buffer.byteLength(path) > PATH_LIMITS.bytes) return { path, fault: 'has too long a path' };
  return { path, via: `${via}/${text}` };
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function utf8(name: Buffer): string | null {
  try {
    return decoder.decode(name);
  } catch {
    return null;
  }
}

type Looked = { readonly path: string; readonly fault: string } | { readonly path: string; readonly stat: Stats };

async function look(root: ResultRoot, { path, via, fault }: Entry): Promise<Looked> {
  if (fault !== undefined || via === undefined) return { path, fault: fault ?? 'cannot be looked at' };
  const stat = await lstat(via).catch(() => null);
  if (stat === null) return { path, fault: 'cannot be looked at' };
  if (stat.isDirectory()) {
    const tooDeep = path.split('/').length >= PATH_LIMITS.depth;
    return tooDeep ? { path, fault: `is more than ${PATH_LIMITS.depth} folders deep` } : { path, stat };
  }
  const why = faultOfFile(stat, root.submitUid);
  return why === null ? { path, stat } : { path, fault: why };
}

function shortened(path: string): string {
  return path.length > 200 ? `${path.slice(0, 200)}…` : path;
}
