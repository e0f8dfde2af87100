import { z } from 'zod';
import { ARCHIVE_KINDS } from '../core/dataset.ts';
import { ERROR_CODES } from '../core/errors.ts';
import { nodeFacts } from '../core/node.ts';

/**
 * What the API (no rights) may ask of the root parent, and nothing else. No request carries a program or an argument: only numbers,
 * names of a narrow grammar, texts that end in files, and for an import a path that only a child without rights opens. The parent
 * checks every request against these schemas again.
 */
const jobId = z.int().positive();
/** A folder's name below `staging/`: made by us, 128 random bits. */
export const stagingId = z.string().regex(/^[0-9a-f]{32}$/);
const externalId = z.string().regex(/^\d{1,10}$/);

export const OPERATIONS = {
  /** Writes `jobs/<id>/`, the log file and the result folder, then runs sbatch as the submit user. Repeatable for one job. */
  submit: {
    request: z.strictObject({
      jobId,
      script: z.string().max(1_048_576),
      params: z.string().max(2_097_152),
      gpus: z.int().min(0).max(256),
      cpus: z.int().min(1).max(65533),
      memoryMiB: z.int().min(1).max(999_999_999),
      timeLimitSeconds: z.int().positive(),
    }),
    response: z.object({ externalId }),
  },
  /** scancel by our name (and Slurm's number where it is known, so that a number given out again is never hit). */
  cancel: { request: z.strictObject({ jobId, externalId: externalId.nullable() }), response: z.object({}) },
  /** One squeue for all jobs of the submit user: its text, as `slurm/commands` reads it. */
  observe: { request: z.strictObject({}), response: z.object({ queue: z.string() }) },
  /** scontrol show node: its text. */
  node: { request: z.strictObject({}), response: z.object({ node: z.string() }) },
  /** After a job's end: lets the API's group read what the job wrote with a narrow mode. Runs as the submit user. */
  release: { request: z.strictObject({ jobId }), response: z.object({}) },
  /**
   * Unpacks `staging/<id>/upload` into `staging/<id>/tree` in a child without privileges; afterwards `tree` is on the disk and belongs
   * to the API's user, and `upload` is gone. `archive: false`: it is compressed, but what is inside is no tar; nothing was changed.
   */
  unpack: {
    request: z.strictObject({
      stagingId,
      kind: z.enum(ARCHIVE_KINDS),
      maxBytes: z.int().positive(),
      maxEntries: z.int().positive(),
      minFreeBytes: z.int().nonnegative(),
    }),
    response: z.object({ archive: z.boolean(), files: z.int(), bytes: z.int() }),
  },
  /** Copies a file below an allowed root into `staging/<id>/upload`, in a killable child, so that a dead mount freezes nobody. */
  fetch: {
    request: z.strictObject({ stagingId, source: z.string().min(1).max(4096), maxBytes: z.int().positive() }),
    response: z.object({ name: z.string(), bytes: z.int(), sha256: z.string() }),
  },
  /** Removes a folder that holds files of other users: a staging folder or a dataset. */
  remove: {
    request: z.discriminatedUnion('area', [
      z.strictObject({ area: z.literal('staging'), name: stagingId }),
      z.strictObject({ area: z.literal('datasets'), name: z.string().regex(/^[0-9a-f]{64}$/) }),
    ]),
    response: z.object({}),
  },
} as const;

export type Operation = keyof typeof OPERATIONS;
export type RequestOf<O extends Operation> = z.output<(typeof OPERATIONS)[O]['request']>;
export type ResponseOf<O extends Operation> = z.output<(typeof OPERATIONS)[O]['response']>;
/** `signal` aborts when the API no longer wants the answer or is gone. */
export type Handlers = {
  readonly [O in Operation]: (request: RequestOf<O>, signal: AbortSignal) => Promise<ResponseOf<O>>;
};
/** The API's side of it. */
export type Ask = <O extends Operation>(
  operation: O,
  request: RequestOf<O>,
  signal?: AbortSignal,
) => Promise<ResponseOf<O>>;

/** What the parent tells unasked. `start` is the first message: all that the API needs, secrets included, so that it reads no environment. */
export const startMessage = z.object({
  event: z.literal('start'),
  version: z.string(),
  root: z.string(),
  nativeBinding: z.string(),
  templates: z.string(),
  token: z.string(),
  host: z.string(),
  port: z.int(),
  generation: z.string(),
  submitUid: z.int(),
  bucketEnabled: z.boolean(),
  limits: z.object({
    uploadBytes: z.int(),
    unpackedBytes: z.int(),
    unpackRatio: z.int(),
    entries: z.int(),
    minFreeBytes: z.int(),
  }),
  node: nodeFacts,
});
export type StartMessage = z.output<typeof startMessage>;

export const statusMessage = z.object({
  event: z.literal('status'),
  /** munged, slurmctld, slurmd: its process lives and has told that it is ready. */
  daemons: z.record(z.string(), z.boolean()),
  bucketMounted: z.boolean(),
  bucketProblem: z.string().nullable(),
});
export type StatusMessage = z.output<typeof statusMessage>;

export const askMessage = z.object({ id: z.int(), op: z.string(), request: z.unknown() });
export const abortMessage = z.object({ abort: z.int() });
export const answerMessage = z.union([
  z.object({ id: z.int(), ok: z.literal(true), response: z.unknown() }),
  z.object({ id: z.int(), ok: z.literal(false), code: z.enum(ERROR_CODES), message: z.string() }),
]);
