import { crc32, deflateRawSync } from 'node:zlib';

/** Writes zip archives by hand, right ones and wrong ones. */
export interface ZipEntry {
  readonly name: string | Buffer;
  readonly content?: Buffer | string;
  readonly mode?: number;
  readonly method?: number;
  readonly flags?: number;
  /** What is written instead of the truth. */
  readonly size?: number;
  readonly compressedSize?: number;
  readonly crc?: number;
  readonly localName?: string;
  readonly localSize?: number;
  readonly offset?: number;
  readonly packed?: Buffer;
  readonly disk?: number;
  readonly extra?: Buffer;
}

export interface ZipEnd {
  readonly count?: number;
  readonly directoryOffset?: number;
  readonly directoryBytes?: number;
  readonly comment?: string;
  readonly after?: Buffer;
  readonly disk?: number;
}

export function zipOf(entries: readonly ZipEntry[], end: ZipEnd = {}): Buffer {
  const locals: Buffer[] = [];
  const records: Buffer[] = [];
  let at = 0;
  for (const entry of entries) {
    const content = Buffer.from(entry.content ?? '');
    const method = entry.method ?? 8;
    const packed = entry.packed ?? (method === 8 ? deflateRawSync(content) : content);
    const name = Buffer.from(entry.name);
    const localName = Buffer.from(entry.localName ?? name);
    const crc = entry.crc ?? crc32(content);
    const size = entry.size ?? content.length;
    const compressed = entry.compressedSize ?? packed.length;
    const local = Buffer.alloc(30);
    local.writeUInt32LE(0x04034b50, 0);
    local.writeUInt16LE(20, 4);
    local.writeUInt16LE(entry.flags ?? 0, 6);
    local.writeUInt16LE(method, 8);
    local.writeUInt32LE(crc, 14);
    local.writeUInt32LE(compressed, 18);
    local.writeUInt32LE(entry.localSize ?? size, 22);
    local.writeUInt16LE(localName.length, 26);
    const record = Buffer.alloc(46);
    record.writeUInt32LE(0x02014b50, 0);
    record.writeUInt16LE(0x031e, 4);
    record.writeUInt16LE(20, 6);
    record.writeUInt16LE(entry.flags ?? 0, 8);
    record.writeUInt16LE(method, 10);
    record.writeUInt32LE(crc, 16);
    record.writeUInt32LE(compressed, 20);
    record.writeUInt32LE(size, 24);
    record.writeUInt16LE(name.length, 28);
    record.writeUInt16LE(entry.extra?.length ?? 0, 30);
    record.writeUInt16LE(entry.disk ?? 0, 34);
    record.writeUInt32LE(((entry.mode ?? 0o100644) << 16) >>> 0, 38);
    record.writeUInt32LE(entry.offset ?? at, 42);
    locals.push(local, localName, packed);
    records.push(record, name, entry.extra ?? Buffer.alloc(0));
    at += 30 + localName.length + packed.length;
  }
  const directory = Buffer.concat(records);
  const tail = Buffer.alloc(22);
  const comment = Buffer.from(end.comment ?? '');
  tail.writeUInt32LE(0x06054b50, 0);
  tail.writeUInt16LE(end.disk ?? 0, 4);
  tail.writeUInt16LE(end.count ?? entries.length, 8);
  tail.writeUInt16LE(end.count ?? entries.length, 10);
  tail.writeUInt32LE(end.directoryBytes ?? directory.length, 12);
  tail.writeUInt32LE(end.directoryOffset ?? at, 16);
  tail.writeUInt16LE(comment.length, 20);
  return Buffer.concat([...locals, directory, tail, comment, end.after ?? Buffer.alloc(0)]);
}
