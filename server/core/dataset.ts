import { AppError } from './errors.ts';

/** A dataset as it is stored. `relPath` is relative to JR_ROOT. */
export interface Dataset {
  /** SHA-256 of the uploaded bytes, lower-case hex: the dataset's address. */
  readonly sha256: string;
  /** `datasets/<sha>/<name>` for a single file, `datasets/<sha>` for an unpacked archive. */
  readonly relPath: string;
  /** Sum of the sizes of the files as stored. */
  readonly bytes: number;
  readonly files: number;
  /** The file name that the client gave. */
  readonly name: string;
  readonly createdAt: number;
}

export const ARCHIVE_KINDS = ['tar', 'tar.gz', 'tar.bz2', 'tar.xz', 'tar.lzma', 'tar.zst', 'zip'] as const;
export type ArchiveKind = (typeof ARCHIVE_KINDS)[number];

const SHA256 = /^[0-9a-f]{64}$/i;

/** The canonical (lower-case) form of a SHA-256; throws `invalid` that names the field. */
export function parseSha256(text: string, field: string): string {
  if (!SHA256.test(text)) {
    throw new AppError('invalid', `${field} must be a SHA-256: 64 hexadecimal digits`, {
      fields: [{ field, message: 'must be 64 hexadecimal digits' }],
    });
  }
  return text.toLowerCase();
}

/** What a store of dataset records can do. A sha256 is always in its canonical form. */
export interface DatasetRecords {
  find(sha256: string): Dataset | null;
  /** Records it unless it is there already; returns what is there. */
  record(dataset: Dataset): Dataset;
  forget(sha256: string): void;
  /** Newest first, at most `limit`, from the one after `after` on. */
  page(limit: number, after: DatasetCursor | null): readonly Dataset[];
  all(): readonly Dataset[];
}

/** Where a page ended. */
export interface DatasetCursor {
  readonly createdAt: number;
  readonly sha256: string;
}

/** Longest name of a file, in bytes (NAME_MAX of Linux' file systems). */
export const MAX_NAME_BYTES = 255;

/**
 * The name under which a single file is stored: the last part of what the client sent, which is a name and never a path. What cannot
 * stand in a file name (control characters, bytes that were no UTF-8) becomes `_`; what is too long loses its middle, not its ending.
 */
export function fileNameFrom(sent: string): string {
  const last = sent.split(/[/\\]/).at(-1) ?? '';
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
  const clean = last.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\ufffd]|\p{Surrogate}/gu, '_').trim();
  if (clean === '' || clean === '.' || clean === '..') return 'upload';
  if (byteLength(clean) <= MAX_NAME_BYTES) return clean;
  const dot = clean.lastIndexOf('.');
  const ending = dot > 0 && byteLength(clean.slice(dot)) <= 32 ? clean.slice(dot) : '';
  const stem = [...clean.slice(0, clean.length - ending.length)];
  let room = MAX_NAME_BYTES - byteLength(ending);
  const kept = stem.filter((character) => {
    room -= byteLength(character);
    return room >= 0;
  });
  return kept.join('') + ending;
}

const encoder = new TextEncoder();
function byteLength(text: string): number {
  return encoder.encode(text).length;
}
