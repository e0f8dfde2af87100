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
