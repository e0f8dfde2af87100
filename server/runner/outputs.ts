import type { FileHandle } from 'node:fs/promises';
import { AppError } from '../core/errors.ts';
import type { JobId } from '../core/job.ts';
import {
  assigning,
  experimentOf,
  type FoundFile,
  isWeights,
  type Output,
  type OutputPage,
  type Skipped,
} from '../core/output.ts';
import type { OutputStore } from '../sqlite/output-store.ts';
import { type OpenedFile, openResultFile, type ResultRoot, sizeOfResultFile } from '../storage/result-folder.ts';
import { SKIPPED_SHOWN, walkResultFolder } from '../storage/result-walk.ts';
import { MANIFEST_BYTES, type Manifest, parseManifest } from './manifest.ts';
import { oneAtATime } from './one-at-a-time.ts';

export type { OpenedFile };

/** What indexing and serving need to know of a job. */
export interface JobOfOutputs {
  readonly id: JobId;
  /** As the job's parameters have it. */
  readonly experimentId: string | null;
}

export interface IndexReport {
  readonly experimentId: string;
  readonly count: number;
  /** The first hundred; `skippedCount` counts all. */
  readonly skipped: readonly Skipped[];
  readonly skippedCount: number;
}

export interface Outputs {
  /** Looks at the result folder and makes the index say what is in it. May be repeated, also while the job runs. Throws `not_found`. */
  index(jobId: JobId): Promise<IndexReport>;
  /** Throws `not_found` for a job that is neither known nor indexed. */
  ofJob(jobId: JobId, after: string, limit: number): OutputPage;
  page(experimentId: string, prefix: string, after: string, limit: number): OutputPage;
  /** Each opens for the caller to close. Throws `not_found`, `invalid`, `forbidden`. */
  open(experimentId: string, outputId: string): Promise<OpenedFile & { readonly path: string }>;
  openPath(jobId: JobId, relPath: string): Promise<OpenedFile>;
  openResult(jobId: JobId): Promise<OpenedFile>;
}

export interface OutputsOptions {
  readonly store: OutputStore;
  readonly results: ResultRoot;
  readonly jobOf: (id: JobId) => JobOfOutputs | null;
  readonly now: () => number;
}

export function createOutputs({ store, results, jobOf, now }: OutputsOptions): Outputs {
  const refuseUnknown = (jobId: JobId) => {
    if (jobOf(jobId) === null && store.ofJob(jobId, '', 1).outputs.length === 0) throw noJob(jobId);
  };

  const index = oneAtATime(async (jobId: JobId): Promise<IndexReport> => {
    const job = jobOf(jobId);
    if (job === null) throw noJob(jobId);
    const found = await findOutputs(results, job, store);
    const experimentId = found.experimentId ?? experimentOf(job);
    const createdAt = now();
    const rows = found.outputs.map(({ id, path, bytes }): Output => {
      return { experimentId, outputId: id, jobId, path, bytes, weights: isWeights(path), createdAt };
    });
    await store.replace(jobId, rows);
    const { skipped, skippedCount } = found;
    return { experimentId, count: rows.length, skipped: skipped.slice(0, SKIPPED_SHOWN), skippedCount };
  });

  return {
    index,
    ofJob(jobId, after, limit) {
      refuseUnknown(jobId);
      return store.ofJob(jobId, after, limit);
    },
    page: store.page,
    async open(experimentId, outputId) {
      const output = store.newest(experimentId, outputId);
      if (output === null) {
        throw new AppError(
          'not_found',
          `experiment "${experimentId}" has no output "${outputId}"; see /outputs?experiment_id=`,
        );
      }
      return { ...(await openResultFile(results, output.jobId, output.path)), path: output.path };
    },
    async openPath(jobId, relPath) {
      refuseUnknown(jobId);
      return openResultFile(results, jobId, relPath);
    },
    async openResult(jobId) {
      refuseUnknown(jobId);
      return openResultFile(results, jobId, 'result.json');
    },
  };
}

function noJob(jobId: JobId): AppError {
  return new AppError('not_found', `there is no job ${jobId}`);
}

interface FoundOutput extends FoundFile {
  readonly id: string;
}

interface FoundOutputs {
  readonly experimentId: string | null;
  readonly outputs: readonly FoundOutput[];
  readonly skipped: readonly Skipped[];
  readonly skippedCount: number;
}

/** By the manifest; without one, and with one that is none, every file. */
async function findOutputs(results: ResultRoot, job: JobOfOutputs, store: OutputStore): Promise<FoundOutputs> {
  const manifest = await readManifest(results, job.id);
  if (manifest !== null && !('fault' in manifest)) return listed(results, job.id, manifest);
  const { files, skipped, skippedCount } = await walkResultFolder(results, job.id);
  const previous = new Map((await store.allOfJob(job.id)).map((each) => [each.path, each.outputId]));
  const ids = await inTurns(assigning(files, previous));
  const outputs = files.map((file) => ({ id: ids.get(file.path) ?? file.path, ...file }));
  if (manifest === null) return { experimentId: null, outputs, skipped, skippedCount };
  const fault = { path: 'manifest.json', reason: `${manifest.fault}: every file was indexed instead` };
  return { experimentId: null, outputs, skipped: [fault, ...skipped], skippedCount: skippedCount + 1 };
}

/** Runs it to its end, and lets other requests in between its steps. */
async function inTurns<T>(steps: Generator<undefined, T>): Promise<T> {
  for (let step = steps.next(); ; step = steps.next()) {
    if (step.done) return step.value;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

async function listed(results: ResultRoot, jobId: JobId, manifest: Manifest): Promise<FoundOutputs> {
  const outputs: FoundOutput[] = [];
  const skipped = [...manifest.skipped];
  for (const { id, path } of manifest.outputs) {
    try {
      outputs.push({ id, path, bytes: await sizeOfResultFile(results, jobId, path) });
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      skipped.push({ path: `manifest.json "${id.slice(0, 100)}"`, reason: error.message });
    }
  }
  return { experimentId: manifest.experimentId, outputs, skipped, skippedCount: skipped.length };
}

async function readManifest(results: ResultRoot, jobId: JobId): Promise<Manifest | { readonly fault: string } | null> {
  let file: OpenedFile;
  try {
    file = await openResultFile(results, jobId, 'manifest.json');
  } catch (error) {
    if (error instanceof AppError) return error.code === 'not_found' ? null : { fault: 'cannot be read' };
    throw error;
  }
  try {
    if (file.bytes > MANIFEST_BYTES) return { fault: `is larger than ${MANIFEST_BYTES} bytes` };
    return parseManifest(await readText(file.handle, file.bytes));
  } finally {
    await file.handle.close();
  }
}

/** At most so many bytes, whatever the file grows to meanwhile. */
async function readText(handle: FileHandle, limit: number): Promise<string> {
  const buffer = Buffer.alloc(limit);
  let length = 0;
  while (length < limit) {
    const { bytesRead } = await handle.read(buffer, length, limit - length, length);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  return buffer.toString('utf8', 0, length);
}
