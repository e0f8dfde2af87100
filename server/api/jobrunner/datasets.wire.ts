import { z } from 'zod';
import { type Dataset, type DatasetCursor, parseSha256 } from '../../core/dataset.ts';
import { integerField, isoTime, textField } from '../fields.ts';

/** The shapes of datasets on the wire. */
export const sha256Params = z.strictObject({
  sha256: z
    .string()
    .refine((text) => /^[0-9a-f]{64}$/i.test(text), 'must be a SHA-256: 64 hexadecimal digits')
    .transform((text) => parseSha256(text, 'sha256')),
});

export const importBody = z.strictObject({
  src_path: textField(4096).min(
    1,
    'must be the path of a file: relative to the bucket, or absolute below an allowed folder',
  ),
});

/** The fields that may stand beside the file. */
export const uploadFields = z.strictObject({ sha256: textField(200).optional() });

export const uploadBody = {
  required: true,
  content: {
    'multipart/form-data': {
      schema: {
        type: 'object',
        required: ['file'],
        properties: {
          file: {
            type: 'string',
            format: 'binary',
            description:
              'a file, or an archive (tar, tar.gz, tar.bz2, tar.xz, tar.lzma, tar.zst, zip) that is unpacked',
          },
          sha256: { type: 'string', description: 'SHA-256 of the file; before or after it' },
        },
      },
    },
  },
};

const cursor = z
  .string()
  .regex(/^\d{1,15}-[0-9a-f]{64}$/, 'must be what an earlier page gave as next_after')
  .transform((text): DatasetCursor => ({ createdAt: Number(text.split('-')[0]), sha256: text.split('-')[1] ?? '' }));
export const pageQuery = z.strictObject({ limit: integerField(1, 1000).default(100), after: cursor.optional() });

export const storedAnswer = z.object({
  sha256: z.string(),
  /** Relative to JR_ROOT. */
  stored_path: z.string(),
  bytes: z.int(),
  files: z.int(),
  name: z.string(),
  created_at: z.string(),
});
export const infoAnswer = z.object({
  sha256: z.string(),
  rel_path: z.string(),
  bytes: z.int(),
  files: z.int(),
  name: z.string(),
  created_at: z.string(),
});
export const existsAnswer = z.object({ exists: z.boolean(), info: infoAnswer.optional() });
export const pageAnswer = z.object({ datasets: z.array(infoAnswer), next_after: z.string().nullable() });
export const deletedAnswer = z.object({ sha256: z.string(), deleted: z.literal(true) });

export function infoOf({ sha256, relPath, bytes, files, name, createdAt }: Dataset): z.output<typeof infoAnswer> {
  return { sha256, rel_path: relPath, bytes, files, name, created_at: isoTime(createdAt) };
}

export function storedOf(dataset: Dataset): z.output<typeof storedAnswer> {
  const { rel_path, ...rest } = infoOf(dataset);
  return { ...rest, stored_path: rel_path };
}

export function pageOf(datasets: readonly Dataset[], limit: number): z.output<typeof pageAnswer> {
  const last = datasets.length === limit ? datasets.at(-1) : undefined;
  return { datasets: datasets.map(infoOf), next_after: last === undefined ? null : `${last.createdAt}-${last.sha256}` };
}
