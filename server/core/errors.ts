/**
 * Every way in which a request or a step can fail on purpose. The code is stable and machine-readable; the message is safe to
 * show and says what was wrong and what is allowed. `api/problem.ts` holds the only map from a code to an HTTP status.
 */
export const ERROR_CODES = [
  'invalid', // a field is missing, malformed or out of range
  'unauthorized', // no token, or not the right one
  'forbidden', // the caller may never have this (a path outside an allowed root, say)
  'not_found',
  'method_not_allowed',
  'conflict', // fine in itself, but not in the present state (a job that has ended is cancelled)
  'too_large', // more bytes, fields or entries than a limit allows
  'unsupported_media_type',
  'range_not_satisfiable',
  'checksum_mismatch', // the bytes are not what the caller said
  'archive_refused', // an archive that is hostile, broken or over a limit
  'impossible', // understood, but this machine can never do it (more GPUs than it has)
  'refused_by_scheduler', // Slurm answered, and said no
  'unavailable', // try again: something that is needed is down for a moment
  'out_of_space',
  'internal',
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

/** One field of a request that was wrong: `field` as the caller wrote it, `message` with what is allowed. */
export interface FieldError {
  readonly field: string;
  readonly message: string;
}

/** An error that we mean: its message may be shown to whoever asked. Anything else is shown as "internal error" and logged whole. */
export class AppError extends Error {
  readonly code: ErrorCode;
  readonly fields: readonly FieldError[];

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; fields?: readonly FieldError[] } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'AppError';
    this.code = code;
    this.fields = options.fields ?? [];
  }
}

/** The message of anything thrown, for logs and for `reason` fields. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
