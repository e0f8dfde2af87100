import { Header } from 'tar/header';
import { looksLikeTar, octalIn } from './archive-kind.ts';
import type { BlockReader } from './block-reader.ts';
import { partsOf } from './entry-rules.ts';
import { type PaxRecords, parsePax } from './pax.ts';
import { quoted, Refusal } from './refusal.ts';
import type { TreeWriter } from './tree-writer.ts';

const BLOCK = 512;
/** Extended headers of one entry; the largest honest ones hold macOS' resource forks. */
const MAX_META_BYTES = 1024 * 1024;
/** Writers fill the last record with zeros; `tar -b` goes up to some MiB. */
const MAX_PADDING_BYTES = 64 * 1024 * 1024;
const MAX_ALL_META_BYTES = 256 * 1024 * 1024;

/** What extended headers say of the entry that follows them. */
interface Extended {
  pax: PaxRecords | null;
  longName: Buffer | null;
  longTarget: Buffer | null;
  bytes: number;
}

/**
 * Unpacks a tar stream. Returns false, having made nothing, when the stream's first block is no tar header.
 *
 * The headers' fields are read by the `tar` package (`Header`), the walk from one to the next is ours: its `Parser` turns names into text
 * before one can see that they were no UTF-8 (and breaks a character that two chunks share), skips what it does not understand, and
 * stops at the end mark without telling what stands behind it. Here whatever is not understood refuses the archive.
 */
export function unpackTar(reader: BlockReader, tree: TreeWriter): boolean {
  let extended = nothingExtended();
  let allMeta = 0;
  for (let first = true; ; first = false) {
    const block = reader.take(BLOCK);
    if (first && (block.length < BLOCK || !looksLikeTar(block))) return false;
    if (block.length === 0) throw new Refusal('the archive is truncated: it has no end mark');
    if (block.length < BLOCK) throw new Refusal('the archive is truncated in the middle of a header');
    if (isZero(block)) {
      if (extended.bytes > 0) throw new Refusal('an extended header at the end of the archive belongs to no entry');
      finishAtEndMark(reader);
      return true;
    }
    const header = readHeader(block);
    const type = String.fromCharCode(block[156] ?? 0);
    if ('xgLK'.includes(type)) {
      if (header.size > MAX_META_BYTES) throw new Refusal(`an extended header is larger than ${MAX_META_BYTES} bytes`);
      allMeta += header.size + BLOCK;
      if (allMeta > MAX_ALL_META_BYTES) throw new Refusal('the extended headers of the archive are too large');
      extend(extended, type, takeMeta(reader, header.size));
      continue;
    }
    tree.count();
    unpackEntry(reader, tree, type, header, block, extended);
    if (extended.bytes > 0) extended = nothingExtended();
  }
}

function unpackEntry(
  reader: BlockReader,
  tree: TreeWriter,
  type: string,
  header: { readonly size: number; readonly mode: number },
  block: Buffer,
  { pax, longName, longTarget }: Extended,
): void {
  if ((pax?.path !== undefined && longName !== null) || (pax?.linkpath !== undefined && longTarget !== null)) {
    throw new Refusal('an entry has two long names that compete');
  }
  const rawName = pax?.path ?? longName ?? nameIn(block);
  const parts = partsOf(rawName);
  const size = pax?.size ?? header.size;
  const target = () => pax?.linkpath ?? longTarget ?? untilNul(block.subarray(157, 257));
  if ('125'.includes(type) && size !== 0)
    throw new Refusal(`the entry ${quoted(rawName)} is a link or a folder but has content`);
  switch (type) {
    case '\0':
    case '0':
    case '7':
      // Before there was a type for them, folders were files with a slash at the end.
      if (rawName.at(-1) !== 0x2f) {
        copyFile(reader, tree, parts, header.mode, size);
        return;
      }
      if (size !== 0) throw new Refusal(`the entry ${quoted(rawName)} is a folder but has content`);
      tree.folder(parts);
      return;
    case '5':
      tree.folder(parts);
      return;
    case '2':
      tree.symbolicLink(parts, target());
      return;
    case '1':
      tree.hardLink(parts, partsOf(target()));
      return;
    case '3':
    case '4':
      throw new Refusal(`the entry ${quoted(rawName)} is a device`);
    case '6':
      throw new Refusal(`the entry ${quoted(rawName)} is a FIFO`);
    case 'S':
      throw new Refusal(`the file ${quoted(rawName)} is stored sparse; pack it without --sparse`);
    case 'M':
      throw new Refusal('the archive is one part of several; only whole archives are allowed');
    default:
      throw new Refusal(`the entry ${quoted(rawName)} has the unknown type ${quoted(type)}`);
  }
}

function copyFile(reader: BlockReader, tree: TreeWriter, parts: readonly string[], mode: number, size: number): void {
  tree.open(parts, mode, size);
  for (let rest = size; rest > 0; ) {
    const chunk = reader.some(rest);
    if (chunk.length === 0) throw new Refusal(`the archive is truncated in the middle of ${quoted(parts.join('/'))}`);
    tree.write(chunk);
    rest -= chunk.length;
  }
  tree.close();
  skipPadding(reader, size);
}

/** Size and mode, when the header is sound. Throws a Refusal. */
function readHeader(block: Buffer): { readonly size: number; readonly mode: number } {
  if (!looksLikeTar(block)) throw new Refusal('the archive is damaged: the checksum of a header is wrong');
  const plainSize = octalIn(block, 124, 136);
  const plainMode = octalIn(block, 100, 108);
  // What every common writer writes; to let `Header` read all the other fields, too, takes as long as to open the file.
  if (plainSize !== null && plainMode !== null && !hasBinaryNumber(block)) return { size: plainSize, mode: plainMode };
  let header: Header;
  try {
    header = new Header(block, 0);
  } catch (error) {
    throw new Refusal(`the archive is damaged: ${error instanceof Error ? error.message : 'a number in a header'}`);
  }
  // `Header` reads "12abc" as 12; another reader would not, and two readings of one archive are a way to smuggle.
  const binary = ((block[124] ?? 0) & 0x80) !== 0;
  const octal = plainSize ?? (isZero(block.subarray(124, 136)) ? 0 : null);
  // It also calls the size of a folder 0 whatever is written there; that is for us to refuse.
  const size = binary && header.type !== 'Directory' ? (header.size ?? -1) : (octal ?? -1);
  if (!Number.isSafeInteger(size) || size < 0) throw new Refusal('the archive is damaged: a header has no valid size');
  return { size, mode: header.mode ?? 0o644 };
}

/** GNU's way to write a number that is too large for its field, in any of them: user, group, size and time. */
function hasBinaryNumber(block: Buffer): boolean {
  return (((block[108] ?? 0) | (block[116] ?? 0) | (block[124] ?? 0) | (block[136] ?? 0)) & 0x80) !== 0;
}

function nameIn(block: Buffer): Buffer {
  const name = untilNul(block.subarray(0, 100));
  // Only POSIX' ustar has a prefix; GNU's own "ustar  " keeps other things there.
  if (block.toString('latin1', 257, 263) !== 'ustar\0') return Buffer.from(name);
  const prefix = untilNul(block.subarray(345, 500));
  return prefix.length === 0 ? Buffer.from(name) : Buffer.concat([prefix, Buffer.from('/'), name]);
}

function untilNul(field: Buffer): Buffer {
  const nul = field.indexOf(0);
  return nul === -1 ? field : field.subarray(0, nul);
}

function nothingExtended(): Extended {
  return { pax: null, longName: null, longTarget: null, bytes: 0 };
}

function extend(extended: Extended, type: string, content: Buffer): void {
  extended.bytes += content.length + 1;
  if (extended.bytes > MAX_META_BYTES)
    throw new Refusal(`the extended headers of an entry are larger than ${MAX_META_BYTES} bytes`);
  if (type === 'g') {
    const { path, linkpath, size } = parsePax(content);
    if (path !== undefined || linkpath !== undefined || size !== undefined) {
      throw new Refusal('a global header gives one name or size to all entries');
    }
    extended.bytes = 0;
  } else if (type === 'x') {
    if (extended.pax !== null) throw new Refusal('an entry has two extended headers');
    extended.pax = parsePax(content);
  } else {
    const field = type === 'L' ? 'longName' : 'longTarget';
    if (extended[field] !== null) throw new Refusal('an entry has two long names that compete');
    const text = untilNul(content);
    if (content.subarray(text.length).some((byte) => byte !== 0))
      throw new Refusal(`the long name ${quoted(content)} contains a NUL byte`);
    extended[field] = text;
  }
}

function takeMeta(reader: BlockReader, size: number): Buffer {
  const taken: Buffer[] = [];
  for (let rest = size; rest > 0; ) {
    const chunk = Buffer.from(reader.some(rest));
    if (chunk.length === 0) throw new Refusal('the archive is truncated in the middle of an extended header');
    taken.push(chunk);
    rest -= chunk.length;
  }
  skipPadding(reader, size);
  return Buffer.concat(taken);
}

function skipPadding(reader: BlockReader, size: number): void {
  const padding = (BLOCK - (size % BLOCK)) % BLOCK;
  if (reader.take(padding).length < padding) throw new Refusal('the archive is truncated behind a file');
}

/** The end mark is two blocks of zeros, and behind it only zeros may stand. One block and the file's end is accepted, as GNU tar does. */
function finishAtEndMark(reader: BlockReader): void {
  for (let padding = 0; ; ) {
    const rest = reader.some(1024 * 1024);
    if (rest.length === 0) return;
    padding += rest.length;
    if (!isZero(rest)) throw new Refusal('there is more data behind the end of the archive');
    if (padding > MAX_PADDING_BYTES)
      throw new Refusal(`there are more than ${MAX_PADDING_BYTES} bytes of padding behind the end of the archive`);
  }
}

const ZEROS = Buffer.alloc(1024 * 1024);
function isZero(bytes: Buffer): boolean {
  return bytes.equals(ZEROS.subarray(0, bytes.length));
}
