import parseExtraField from 'unzipper/lib/parseExtraField.js';
import type { FileWindow } from './file-window.ts';
import { Refusal } from './refusal.ts';

/** One record of the central directory. */
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
  records(): Generator<ZipRecord>;
}

const END = 0x06054b50;
const END64 = 0x06064b50;
const END64_LOCATOR = 0x07064b50;
const RECORD = 0x02014b50;
const RECORD_BYTES = 46;
const WINDOW_BYTES = 1024 * 1024;
/** What a field holds whose number stands in zip64's extra field. */
const IN_EXTRA = 0xffffffff;

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

/**
 * Reads one record after the other. Not by `unzipper` as a whole: it makes a dozen promises and three streams for each, which takes longer
 * than to unpack a small file, and it turns names into text before one can see that they were no UTF-8. Its reading of zip64 is used.
 */
function* records(
  file: FileWindow,
  directory: { entries: number; offset: number; bytes: number },
): Generator<ZipRecord> {
  const end = directory.offset + directory.bytes;
  let start = directory.offset;
  let window: Buffer = Buffer.alloc(0);
  let at = 0;
  for (let left = directory.entries; left > 0; left--) {
    // A record and its three names need less than 256 KiB.
    if (window.length - at < WINDOW_BYTES / 4 && start + window.length < end) {
      start += at;
      at = 0;
      window = file.copy(start, Math.min(end - start, WINDOW_BYTES));
    }
    const record = recordAt(window, at);
    at += record.bytes;
    yield record;
  }
  if (start + at !== end)
    throw new Refusal('the zip archive is damaged: there is more in its directory than the entries it counts');
}

function recordAt(window: Buffer, at: number): ZipRecord & { readonly bytes: number } {
  const cut = () => new Refusal('the zip archive is damaged: its directory ends in the middle of a record');
  if (at + RECORD_BYTES > window.length) throw cut();
  if (window.readUInt32LE(at) !== RECORD)
    throw new Refusal('the zip archive is damaged: a record of its directory has no signature');
  const name = at + RECORD_BYTES;
  const extra = name + window.readUInt16LE(at + 28);
  const comment = extra + window.readUInt16LE(at + 30);
  const next = comment + window.readUInt16LE(at + 32);
  if (next > window.length) throw cut();
  const { compressedSize, size, localOffset } = placeOf(window, at, window.subarray(extra, comment));
  if (
    !Number.isSafeInteger(compressedSize) ||
    !Number.isSafeInteger(size) ||
    !Number.isSafeInteger(localOffset) ||
    window.readUInt16LE(at + 34) !== 0
  ) {
    throw new Refusal('the zip archive is damaged: an entry has no valid size or place');
  }
  return {
    bytes: next - at,
    name: window.subarray(name, extra),
    flags: window.readUInt16LE(at + 8),
    method: window.readUInt16LE(at + 10),
    crc32: window.readUInt32LE(at + 16),
    compressedSize,
    size,
    externalAttributes: window.readUInt32LE(at + 38),
    localOffset,
  };
}

function placeOf(window: Buffer, at: number, extra: Buffer) {
  const compressedSize = window.readUInt32LE(at + 20);
  const size = window.readUInt32LE(at + 24);
  const localOffset = window.readUInt32LE(at + 42);
  if (compressedSize !== IN_EXTRA && size !== IN_EXTRA && localOffset !== IN_EXTRA)
    return { compressedSize, size, localOffset };
  const fields: Parameters<typeof parseExtraField>[1] = {
    compressedSize,
    uncompressedSize: size,
    offsetToLocalFileHeader: localOffset,
  };
  parseExtraField(extra, fields);
  return {
    compressedSize: fields.compressedSize ?? Number.NaN,
    size: fields.uncompressedSize ?? Number.NaN,
    localOffset: fields.offsetToLocalFileHeader ?? Number.NaN,
  };
}

function safe(value: bigint): number {
  if (value > 2n ** 52n) throw new Refusal('the zip archive is damaged: a number in it is larger than any file');
  return Number(value);
}
