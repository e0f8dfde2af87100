import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { crc32, createInflateRaw, inflateRawSync } from 'node:zlib';
import type { FileWindow } from './file-window.ts';
import { quoted, Refusal } from './refusal.ts';
import type { ZipRecord } from './zip-directory.ts';

/** Up to here an entry is inflated in one call: a stream's set-up costs more than the work. */
const SMALL_BYTES = 1024 * 1024;
const CHUNK_BYTES = 1024 * 1024;

type Take = (chunk: Buffer) => void;

/** Whether `readSmall` reads it; else `readLarge` must. */
export function isSmall(record: ZipRecord): boolean {
  return record.method === 0 || (record.compressedSize <= SMALL_BYTES && record.size <= SMALL_BYTES);
}

/** Hands over the content at `offset` and checks it: size, checksum, and that nothing stands behind its end. Throws a Refusal. */
export function readSmall(file: FileWindow, record: ZipRecord, offset: number, take: Take): void {
  const { measure, finish } = meter(record, take);
  if (record.method === 0) {
    for (const chunk of chunks(file, offset, record.compressedSize)) measure(chunk);
    finish(record.compressedSize);
  } else {
    finish(inflateSmall(file, record, offset, measure));
  }
}

/** The same for a compressed entry of any size. */
export async function readLarge(file: FileWindow, record: ZipRecord, offset: number, take: Take): Promise<void> {
  const { measure, finish } = meter(record, take);
  const stream = createInflateRaw({ chunkSize: CHUNK_BYTES });
  await pipeline(
    Readable.from(chunks(file, offset, record.compressedSize)),
    stream,
    async (source: AsyncIterable<Buffer>) => {
      for await (const chunk of source) measure(chunk);
    },
  ).catch((error: unknown) => {
    throw damaged(record, error);
  });
  finish(stream.bytesWritten);
}

function meter(record: ZipRecord, take: Take): { readonly measure: Take; finish(consumed: number): void } {
  let size = 0;
  let checksum = 0;
  return {
    measure(chunk) {
      size += chunk.length;
      if (size > record.size) throw lies(record, `it holds more than the ${record.size} bytes it says`);
      checksum = crc32(chunk, checksum);
      if (chunk.length > 0) take(chunk);
    },
    finish(consumed) {
      if (consumed !== record.compressedSize) throw lies(record, 'there is more data behind its end');
      if (size !== record.size) throw lies(record, `it holds ${size} bytes and not the ${record.size} it says`);
      if (checksum !== record.crc32)
        throw new Refusal(`the entry ${quoted(record.name)} is damaged: its checksum is wrong`);
    },
  };
}

function inflateSmall(file: FileWindow, record: ZipRecord, offset: number, measure: Take): number {
  const packed = file.at(offset, record.compressedSize);
  let result: { readonly buffer: Buffer; readonly engine: { readonly bytesWritten: number } };
  try {
    // With `info` it answers what it consumed, too (https://nodejs.org/docs/latest-v20.x/api/zlib.html#class-options).
    const room = record.size + 1;
    result = inflateRawSync(packed, {
      info: true,
      maxOutputLength: room,
      chunkSize: Math.max(64, room),
    }) as never;
  } catch (error) {
    throw damaged(record, error);
  }
  measure(result.buffer);
  return result.engine.bytesWritten;
}

function* chunks(file: FileWindow, offset: number, bytes: number): Generator<Buffer> {
  for (let done = 0; done < bytes; done += CHUNK_BYTES)
    yield file.copy(offset + done, Math.min(CHUNK_BYTES, bytes - done));
}

export function lies(record: ZipRecord, how: string): Refusal {
  return new Refusal(`the entry ${quoted(record.name)} of the zip archive is not what it says: ${how}`);
}

function damaged(record: ZipRecord, error: unknown): unknown {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  if (code === 'ERR_BUFFER_TOO_LARGE') return lies(record, `it holds more than the ${record.size} bytes it says`);
  return /^Z_|^ERR_BUFFER/.test(code)
    ? new Refusal(`the entry ${quoted(record.name)} is damaged: its compressed data is broken`)
    : error;
}
