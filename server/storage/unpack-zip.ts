import { partsOf } from './entry-rules.ts';
import { FileWindow } from './file-window.ts';
import { quoted, Refusal } from './refusal.ts';
import type { TreeWriter } from './tree-writer.ts';
import { isSmall, lies, readLarge, readSmall } from './zip-content.ts';
import { openZip, type ZipRecord } from './zip-directory.ts';

const FILE_TYPE = 0o170000;

/** Unpacks the zip archive behind `fd`, a regular file. Throws a Refusal. */
export async function unpackZip(fd: number, fileBytes: number, maxEntries: number, tree: TreeWriter): Promise<void> {
  const file = new FileWindow(fd);
  const directory = openZip(file, fileBytes);
  if (directory.entries > maxEntries) {
    throw new Refusal(`the archive has ${directory.entries} entries; at most ${maxEntries} are allowed`);
  }
  const extents: [number, number][] = [];
  for (const record of directory.records()) {
    tree.count();
    const content = localContent(file, record);
    if (content + record.compressedSize > directory.offset) throw lies(record, 'its content overlaps the directory');
    extents.push([record.localOffset, content + record.compressedSize]);
    const unfinished = unpackEntry(file, record, content, tree);
    if (unfinished !== null) await unfinished;
  }
  refuseOverlaps(extents);
}

/** Null when the entry is done, as most are: to wait for a promise costs more than a small file. */
function unpackEntry(file: FileWindow, record: ZipRecord, content: number, tree: TreeWriter): Promise<void> | null {
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
    return null;
  }
  if (type === 0o120000) {
    if (record.size > 4096 || !isSmall(record))
      throw new Refusal(`the link ${quoted(name)} has a target that is too long`);
    const target: Buffer[] = [];
    readSmall(file, record, content, (chunk) => void target.push(Buffer.from(chunk)));
    tree.symbolicLink(parts, Buffer.concat(target));
    return null;
  }
  if (type !== 0 && type !== 0o100000) throw new Refusal(`the entry ${quoted(name)} is a device, a FIFO or a socket`);
  tree.open(parts, mode, record.size);
  const take = (chunk: Buffer) => tree.write(chunk);
  if (!isSmall(record)) return readLarge(file, record, content, take).then(() => tree.close());
  readSmall(file, record, content, take);
  tree.close();
  return null;
}

/** Checks the header that stands before the content against the directory's record; returns where the content begins. */
function localContent(file: FileWindow, record: ZipRecord): number {
  if ((record.flags & 0x2041) !== 0) throw new Refusal(`the entry ${quoted(record.name)} is encrypted`);
  if (record.method !== 0 && record.method !== 8) {
    throw new Refusal(
      `the entry ${quoted(record.name)} is compressed by method ${record.method}; only "stored" and "deflated" are allowed`,
    );
  }
  const header = file.at(record.localOffset, 30 + record.name.length);
  if (header.readUInt32LE(0) !== 0x04034b50) throw lies(record, 'there is no entry where the directory says');
  const nameBytes = header.readUInt16LE(26);
  if (nameBytes !== record.name.length || !header.subarray(30).equals(record.name)) {
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

/** Two entries that share bytes are how a small archive becomes a huge one (https://www.bamsoftware.com/hacks/zipbomb/). */
function refuseOverlaps(extents: [number, number][]): void {
  extents.sort((a, b) => a[0] - b[0]);
  for (const [index, [start]] of extents.entries()) {
    if (index > 0 && start < (extents[index - 1]?.[1] ?? 0))
      throw new Refusal('two entries of the zip archive overlap');
  }
}
