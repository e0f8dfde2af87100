import type { Dataset, DatasetCursor, DatasetRecords } from '../core/dataset.ts';
import { fileNameFrom, parseSha256 } from '../core/dataset.ts';
import { AppError } from '../core/errors.ts';
import type { Ask, StartMessage } from '../parent/protocol.ts';
import { recognise } from '../storage/archive-kind.ts';
import { datasetsOnDisk, measure, publish, treeOfOneFile } from '../storage/dataset-folders.ts';
import type { Paths } from '../storage/paths.ts';
import { Refusal } from '../storage/refusal.ts';
import { checkSpace, makeStaging, removeStaging, type Staging } from '../storage/staging.ts';
import { type Received, readHead, UploadSink } from '../storage/upload-sink.ts';

export interface DatasetsOptions {
  readonly paths: Paths;
  readonly records: DatasetRecords;
  readonly ask: Ask;
  readonly limits: StartMessage['limits'];
  /** Whether an unfinished job works with it. */
  readonly isNeeded: (sha256: string) => boolean;
  readonly now: () => number;
  /** Hears of each step of a dataset's way, for logs (and for tests that die there). */
  readonly onStep?: (step: Step) => void;
}

export type Step = 'staged' | 'received' | 'unpacked' | 'ready' | 'published' | 'recorded' | 'cleaned';

/** An upload that lies complete in staging. */
export interface Upload extends Received {
  readonly staging: Staging;
  /** The client's own name for it. */
  readonly name: string;
}

export type Datasets = ReturnType<typeof datasets>;

/** Small archives may grow to this whatever the ratio: a few lines of text pack very well. */
const ALWAYS_ALLOWED_BYTES = 64 * 1024 * 1024;

/** The use cases around datasets: receive, import, find, list, delete, and put right what a crash left. */
export function datasets(options: DatasetsOptions) {
  const { paths, records, ask, limits } = options;
  const step = options.onStep ?? (() => {});
  const turn = oneAtATime();

  const discard = async (staging: Staging): Promise<void> => {
    if (!(await removeStaging(paths, staging))) await ask('remove', { area: 'staging', name: staging.id });
  };

  /** Turns what lies in staging into a dataset. The same content twice, also at the same time, is one dataset and one answer. */
  const keep = (upload: Upload, expected: string | undefined): Promise<Dataset> =>
    turn(upload.sha256, async () => {
      try {
        checkDigest(upload.sha256, expected);
        const there = records.find(upload.sha256);
        if (there !== null) return there;
        const content = await prepareTree(upload);
        step('ready');
        const fresh = await publish(paths, upload.staging, upload.sha256);
        step('published');
        const dataset = fresh ? { ...content, createdAt: options.now() } : await measure(paths, upload.sha256);
        const recorded = records.record(dataset);
        step('recorded');
        return recorded;
      } catch (error) {
        throw error instanceof Refusal ? new AppError(error.code, error.message) : error;
      } finally {
        await discard(upload.staging);
        step('cleaned');
      }
    });

  const prepareTree = async ({
    staging,
    sha256,
    bytes,
    head,
    name: sent,
  }: Upload): Promise<Omit<Dataset, 'createdAt'>> => {
    const name = fileNameFrom(sent);
    const found = recognise(head, name);
    if (found.as === 'archive') {
      const maxBytes = Math.min(limits.unpackedBytes, Math.max(ALWAYS_ALLOWED_BYTES, bytes * limits.unpackRatio));
      const request = {
        stagingId: staging.id,
        kind: found.kind,
        maxBytes,
        maxEntries: limits.entries,
        minFreeBytes: limits.minFreeBytes,
      };
      const unpacked = await ask('unpack', request);
      step('unpacked');
      if (unpacked.archive)
        return { sha256, relPath: `datasets/${sha256}`, bytes: unpacked.bytes, files: unpacked.files, name };
      if (found.promised)
        throw new Refusal(`the name ends like a ${found.kind} archive, but there is no tar in it, or an empty one`);
    }
    await treeOfOneFile(staging, name);
    return { sha256, relPath: `datasets/${sha256}/${name}`, bytes, files: 1, name };
  };

  return {
    find: (sha256: string): Dataset | null => records.find(sha256),
    page: (limit: number, after: DatasetCursor | null): readonly Dataset[] => records.page(limit, after),

    /** A place for an upload's bytes, and the stream that takes them there. `expectedBytes` is what the client announced. */
    begin: async (
      name: string,
      expectedBytes: number,
    ): Promise<{ readonly staging: Staging; readonly sink: UploadSink }> => {
      await checkSpace(paths, expectedBytes, limits.minFreeBytes);
      const staging = await makeStaging(paths);
      step('staged');
      const sink = new UploadSink({
        path: staging.upload,
        maxBytes: limits.uploadBytes,
        checkSpace: () => checkSpace(paths, 0, limits.minFreeBytes),
        staysAsIs: (head) => staysAsIs(head, name),
      });
      return { staging, sink };
    },
    discard,
    keep: (upload: Upload, expected: string | undefined): Promise<Dataset> => {
      step('received');
      return keep(upload, expected);
    },

    /** Copies a file from the bucket or from another allowed root and keeps it. Throws not_found, forbidden, too_large, unavailable. */
    importFrom: async (source: string): Promise<Dataset> => {
      const staging = await makeStaging(paths);
      let handedOn = false;
      try {
        const copied = await ask('fetch', { stagingId: staging.id, source, maxBytes: limits.uploadBytes });
        const head = await readHead(staging.upload);
        handedOn = true;
        return await keep({ staging, ...copied, head }, undefined);
      } finally {
        if (!handedOn) await discard(staging);
      }
    },

    /** Throws `not_found`, and `conflict` while an unfinished job needs it. */
    remove: (sha256: string): Promise<void> =>
      turn(sha256, async () => {
        const dataset = records.find(sha256);
        if (dataset === null) throw new AppError('not_found', `there is no dataset ${sha256}`);
        if (options.isNeeded(sha256))
          throw new AppError('conflict', 'an unfinished job needs this dataset: cancel the job or wait for its end');
        // The record first, in the same breath as the question: no job can be accepted in between. A crash before the folder is gone
        // leaves a folder without a record, which the next start takes for what it is: a dataset that is still there.
        records.forget(sha256);
        try {
          await ask('remove', { area: 'datasets', name: sha256 });
        } catch (error) {
          records.record(dataset);
          throw error;
        }
      }),

    /** At start: a crash may have come between a folder and its record. */
    repair: async (): Promise<{ readonly recorded: number; readonly forgotten: number }> => {
      const onDisk = await datasetsOnDisk(paths);
      const recorded = new Set(records.all().map(({ sha256 }) => sha256));
      const missing = [...onDisk].filter((sha256) => !recorded.has(sha256));
      for (const sha256 of missing) records.record(await measure(paths, sha256));
      const gone = [...recorded].filter((sha256) => !onDisk.has(sha256));
      for (const sha256 of gone) records.forget(sha256);
      return { recorded: missing.length, forgotten: gone.length };
    },
  };
}

function checkDigest(found: string, expected: string | undefined): void {
  if (expected === undefined || parseSha256(expected, 'sha256') === found) return;
  throw new AppError(
    'checksum_mismatch',
    `the uploaded file has the SHA-256 ${found} and not the one that sha256 says; nothing was kept`,
    {
      fields: [{ field: 'sha256', message: `is not the digest of the file, which is ${found}` }],
    },
  );
}

function staysAsIs(head: Buffer, name: string): boolean {
  try {
    return recognise(head, name).as === 'file';
  } catch {
    return false;
  }
}

/** Lets what concerns one key happen one after the other. */
function oneAtATime(): <T>(key: string, act: () => Promise<T>) => Promise<T> {
  const last = new Map<string, Promise<unknown>>();
  return (key, act) => {
    const mine = (last.get(key) ?? Promise.resolve()).then(act, act);
    const settled = mine.then(
      () => {},
      () => {},
    );
    last.set(key, settled);
    void settled.then(() => {
      if (last.get(key) === settled) last.delete(key);
    });
    return mine;
  };
}
