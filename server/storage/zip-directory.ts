import { Readable } from 'node:stream';
import { Open } from 'unzipper';
import type { FileWindow } from './file-window.ts';
import { Refusal } from './refusal.ts';

/** One record of the central directory, as `unzipper` reads it. */
export interface ZipRecord {
  readonly name: Buffer;
  readonly flags: number;
  readonly method: number;
  readonly crc32: number;
  readonly compressedSize: number;
  readonly size: number;
  readonly externalAttributes: number;
  readonly localOffset: number;
}

export interface ZipDirectory {
  readonly entries: number;
  /** Where the central directory begins: all content lies before it. */
  readonly offset: number;
  records(): AsyncGenerator<ZipRecord>;
}

const END = 0x06054b50;
const END64 = 0x06064b50;
const END64_LOCATOR = 0x07064b50;
const RECORD = 0x02014b50;
const RECORD_BYTES = 46;
/** So many records are handed to `unzipper` at once: it makes objects for all of a directory, and a directory may have a million. */
const WINDOW_RECORDS = 2_000;

/**
 * Finds the central directory from the file's end. Strict: the end record is the file's last thing (no trailing data), the directory
 * fills the space between content and end record exactly, there is one disk, and both counts agree. Throws a Refusal.
 */
export function openZip(file: FileWindow, fileBytes: number): ZipDirectory {
  const at = findEnd(file, fileBytes);
  const end = file.copy(at, 22);
  let entries = end.readUInt16LE(10);
  let bytes = end.readUInt32LE(12);
  let offset = end.readUInt32LE(16);
  let directoryEnd = at;
  let disks = end.readUInt16LE(4) !== 0 || end.readUInt16LE(6) !== 0 || end.readUInt16LE(8) !== entries;
  const locator = at >= 20 ? file.copy(at - 20, 20) : null;
  if (locator?.readUInt32LE(0) === END64_LOCATOR) {
    const at64 = safe(locator.readBigUInt64LE(8));
    const end64 = at64 + 56 <= at - 20 ? file.copy(at64, 56) : null;
    if (end64?.readUInt32LE(0) !== END64 || safe(end64.readBigUInt64LE(4)) + 12 !== at - 20 - at64) {
      throw new Refusal('the zip archive is damaged: its zip64 end record is not where it should be');
    }
    const entries64 = safe(end64.readBigUInt64LE(32));
    const bytes64 = safe(end64.readBigUInt64LE(40));
    const offset64 = safe(end64.readBigUInt64LE(48));
    const agrees = (small: number, full: number, large: number) => small === full || small === large;
    if (
      !agrees(entries, 0xffff, entries64) ||
      !agrees(bytes, 0xffffffff, bytes64) ||
      !agrees(offset, 0xffffffff, offset64)
    ) {
      throw new Refusal('the zip archive is damaged: its two end records contradict each other');
    }
    disks =
      end64.readUInt32LE(16) !== 0 || end64.readUInt32LE(20) !== 0 || safe(end64.readBigUInt64LE(24)) !== entries64;
    [entries, bytes, offset, directoryEnd] = [entries64, bytes64, offset64, at64];
  }
  if (disks) throw new Refusal('the zip archive is one part of several; only whole archives are allowed');
  if (offset + bytes !== directoryEnd)
    throw new Refusal('the zip archive is damaged: its directory is not where its end record says');
  if (entries * RECORD_BYTES > bytes)
    throw new Refusal('the zip archive is damaged: its directory is too small for its entries');
  return { entries, offset, records: () => records(file, { entries, offset, bytes }) };
}

/** The end record's comment may hold up to 65,535 bytes; only a record whose comment ends where the file ends is one. */
function findEnd(file: FileWindow, fileBytes: number): number {
  const tail = file.copy(Math.max(0, fileBytes - 22 - 0xffff), Math.min(fileBytes, 22 + 0xffff));
  for (let at = tail.length - 22; at >= 0; at--) {
    if (tail.readUInt32LE(at) === END && at + 22 + tail.readUInt16LE(at + 20) === tail.length)
      return fileBytes - tail.length + at;
  }
  throw new Refusal('the zip archive is truncated, or there is more data behind its end');
}

async function* records(
  file: FileWindow,
  directory: { entries: number; offset: number; bytes: number },
): AsyncGenerator<ZipRecord> {
  const end = directory.offset + directory.bytes;
  let at = directory.offset;
  let left = directory.entries;
  while (left > 0) {
    const window = file.copy(at, Math.min(end - at, 1024 * 1024));
    const { count, bytes } = wholeRecords(window, Math.min(left, WINDOW_RECORDS));
    if (count === 0) throw new Refusal('the zip archive is damaged: its directory ends in the middle of a record');
    yield* await parse(window.subarray(0, bytes), count);
    at += bytes;
    left -= count;
  }
  if (at !== end)
    throw new Refusal('the zip archive is damaged: there is more in its directory than the entries it counts');
}

function wholeRecords(window: Buffer, atMost: number): { readonly count: number; readonly bytes: number } {
  let at = 0;
  let count = 0;
  while (count < atMost && at + RECORD_BYTES <= window.length) {
    if (window.readUInt32LE(at) !== RECORD)
      throw new Refusal('the zip archive is damaged: a record of its directory has no signature');
    const next =
      at + RECORD_BYTES + window.readUInt16LE(at + 28) + window.readUInt16LE(at + 30) + window.readUInt16LE(at + 32);
    if (next > window.length) break;
    at = next;
    count += 1;
  }
  return { count, bytes: at };
}

/** Lets `unzipper` read some records: it is given a file that holds only them and an end record. */
async function parse(bytes: Buffer, count: number): Promise<readonly ZipRecord[]> {
  const end = Buffer.alloc(22);
  end.writeUInt32LE(END, 0);
  end.writeUInt16LE(count, 8);
  end.writeUInt16LE(count, 10);
  end.writeUInt32LE(bytes.length, 12);
  const file = Buffer.concat([bytes, end]);
  const source = { size: async () => file.length, stream: (offset: number) => Readable.from([file.subarray(offset)]) };
  // The types know neither the second argument nor that a promise of the size will do.
  const open = Open.custom as unknown as (source: object, options: object) => ReturnType<typeof Open.custom>;
  const { files } = await open(source, { tailSize: 22 });
  return files.map((file) => {
    const { disk, ...record } = recordOf(file);
    const numbers = [record.compressedSize, record.size, record.localOffset];
    if (numbers.some((number) => !Number.isSafeInteger(number)) || disk !== 0) {
      throw new Refusal('the zip archive is damaged: an entry has no valid size or place');
    }
    return record;
  });
}

function recordOf(file: Awaited<ReturnType<typeof Open.custom>>['files'][number]) {
  // The types of `unzipper` leave out some of what it reads; zip64's sizes are null where the field is too short.
  const raw = file as unknown as Record<string, number | null> & { readonly pathBuffer: Buffer | '' };
  return {
    name: Buffer.from(raw.pathBuffer),
    disk: raw.diskNumber ?? -1,
    flags: raw.flags ?? 0,
    method: raw.compressionMethod ?? -1,
    crc32: raw.crc32 ?? 0,
    compressedSize: raw.compressedSize ?? Number.NaN,
    size: raw.uncompressedSize ?? Number.NaN,
    externalAttributes: raw.externalFileAttributes ?? 0,
    localOffset: raw.offsetToLocalFileHeader ?? Number.NaN,
  };
}

function safe(value: bigint): number {
  if (value > 2n ** 52n) throw new Refusal('the zip archive is damaged: a number in it is larger than any file');
  return Number(value);
}
