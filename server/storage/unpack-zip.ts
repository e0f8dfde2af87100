import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { crc32, createInflateRaw, inflateRawSync } from 'node:zlib';
import { partsOf } from './entry-rules.ts';
import { quoted, Refusal } from './refusal.ts';
import type { TreeWriter } from './tree-writer.ts';
import { openZip, read, type ZipRecord } from './zip-directory.ts';

/** Up to here an entry is inflated in one call: a stream's set-up costs more than the work. */
const SMALL_BYTES = 1024 * 1024;
const CHUNK_BYTES = 1024 * 1024;
const FILE_TYPE = 0o170000;

/** Unpacks the zip archive behind `fd`, a regular file. Throws a Refusal. */
export async function unpackZip(fd: number, fileBytes: number, maxEntries: number, tree: TreeWriter): Promise<void> {
  const directory = openZip(fd, fileBytes);
  if (directory.entries > maxEntries) {
    throw new Refusal(`the archive has ${directory.entries} entries; at most ${maxEntries} are allowed`);
  }
  const extents: [number, number][] = [];
  for await (const record of directory.records()) {
    tree.count();
    const content = localContent(fd, record);
    if (content + record.compressedSize > directory.offset) throw lies(record, 'its content overlaps the directory');
    extents.push([record.localOffset, content + record.compressedSize]);
    await unpackEntry(fd, record, content, tree);
  }
  refuseOverlaps(extents);
}

async function unpackEntry(fd: number, record: ZipRecord, content: number, tree: TreeWriter): Promise<void> {
  const name = record.name;
  if (name.includes(0x5c))
    throw new Refusal(`the path ${quoted(name)} contains a backslash; zip separates folders by "/"`);
  const parts = partsOf(name);
  // The upper half is the Unix mode, where the packing side had one; where it had none it is zero.
  const mode = record.externalAttributes >>> 16;
  const type = mode & FILE_TYPE;
  if (name.at(-1) === 0x2f || type === 0o040000) {
    if (record.size !== 0) throw new Refusal(`the entry ${quoted(name)} is a folder but has content`);
    tree.folder(parts);
    return;
  }
  if (type === 0o120000) {
    if (record.size > 4096) throw new Refusal(`the link ${quoted(name)} has a target that is too long`);
    const target: Buffer[] = [];
    await inflate(fd, record, content, (chunk) => void target.push(Buffer.from(chunk)));
    tree.symbolicLink(parts, Buffer.concat(target));
    return;
  }
  if (type !== 0 && type !== 0o100000) throw new Refusal(`the entry ${quoted(name)} is a device, a FIFO or a socket`);
  tree.open(parts, mode, record.size);
  await inflate(fd, record, content, (chunk) => tree.write(chunk));
  tree.close();
}

/** Checks the header that stands before the content against the directory's record; returns where the content begins. */
function localContent(fd: number, record: ZipRecord): number {
  if ((record.flags & 0x2041) !== 0) throw new Refusal(`the entry ${quoted(record.name)} is encrypted`);
  if (record.method !== 0 && record.method !== 8) {
    throw new Refusal(
      `the entry ${quoted(record.name)} is compressed by method ${record.method}; only "stored" and "deflated" are allowed`,
    );
  }
  const header = read(fd, record.localOffset, 30);
  if (header.readUInt32LE(0) !== 0x04034b50) throw lies(record, 'there is no entry where the directory says');
  const nameBytes = header.readUInt16LE(26);
  if (nameBytes !== record.name.length || !read(fd, record.localOffset + 30, nameBytes).equals(record.name)) {
    throw lies(record, 'it has another name in the directory');
  }
  const flags = header.readUInt16LE(6);
  if ((flags & 0x2041) !== 0) throw new Refusal(`the entry ${quoted(record.name)} is encrypted`);
  const differs = (at: number, value: number) =>
    header.readUInt32LE(at) !== value && header.readUInt32LE(at) !== 0xffffffff;
  // Bit 3: sizes and checksum follow the content, because the writer did not know them yet.
  const sized = (flags & 0x8) === 0;
  if (header.readUInt16LE(8) !== record.method) throw lies(record, 'it has another method in the directory');
  if (sized && (differs(18, record.compressedSize) || differs(22, record.size))) {
    throw lies(record, 'it has another size in the directory');
  }
  return record.localOffset + 30 + nameBytes + header.readUInt16LE(28);
}

async function inflate(fd: number, record: ZipRecord, offset: number, take: (chunk: Buffer) => void): Promise<void> {
  let size = 0;
  let checksum = 0;
  const measure = (chunk: Buffer) => {
    size += chunk.length;
    if (size > record.size) throw lies(record, `it holds more than the ${record.size} bytes it says`);
    checksum = crc32(chunk, checksum);
    if (chunk.length > 0) take(chunk);
  };
  let consumed = record.compressedSize;
  if (record.method === 0) {
    for (const chunk of chunks(fd, offset, record.compressedSize)) measure(chunk);
  } else if (record.compressedSize <= SMALL_BYTES && record.size <= SMALL_BYTES) {
    consumed = inflateSmall(fd, record, offset, measure);
  } else {
    const stream = createInflateRaw({ chunkSize: CHUNK_BYTES });
    await pipeline(
      Readable.from(chunks(fd, offset, record.compressedSize)),
      stream,
      async (source: AsyncIterable<Buffer>) => {
        for await (const chunk of source) measure(chunk);
      },
    ).catch((error: unknown) => {
      throw damaged(record, error);
    });
    consumed = stream.bytesWritten;
  }
  if (consumed !== record.compressedSize) throw lies(record, 'there is more data behind its end');
  if (size !== record.size) throw lies(record, `it holds ${size} bytes and not the ${record.size} it says`);
  if (checksum !== record.crc32)
    throw new Refusal(`the entry ${quoted(record.name)} is damaged: its checksum is wrong`);
}

function inflateSmall(fd: number, record: ZipRecord, offset: number, measure: (chunk: Buffer) => void): number {
  const packed = read(fd, offset, record.compressedSize);
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

function* chunks(fd: number, offset: number, bytes: number): Generator<Buffer> {
  for (let done = 0; done < bytes; done += CHUNK_BYTES)
    yield read(fd, offset + done, Math.min(CHUNK_BYTES, bytes - done));
}

/** Two entries that share bytes are how a small archive becomes a huge one (https://www.bamsoftware.com/hacks/zipbomb/). */
function refuseOverlaps(extents: [number, number][]): void {
  extents.sort((a, b) => a[0] - b[0]);
  for (const [index, [start]] of extents.entries()) {
    if (index > 0 && start < (extents[index - 1]?.[1] ?? 0))
      throw new Refusal('two entries of the zip archive overlap');
  }
}

function lies(record: ZipRecord, how: string): Refusal {
  return new Refusal(`the entry ${quoted(record.name)} of the zip archive is not what it says: ${how}`);
}

function damaged(record: ZipRecord, error: unknown): unknown {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  if (code === 'ERR_BUFFER_TOO_LARGE') return lies(record, `it holds more than the ${record.size} bytes it says`);
  return /^Z_|^ERR_BUFFER/.test(code)
    ? new Refusal(`the entry ${quoted(record.name)} is damaged: its compressed data is broken`)
    : error;
}
