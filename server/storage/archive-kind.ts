import type { ArchiveKind } from '../core/dataset.ts';
import { Refusal } from './refusal.ts';

/** How many bytes of an upload's start `recognise` wants to see. */
export const HEAD_BYTES = 512;

/**
 * What an upload is. `archive`: to be unpacked; `promised` says that its name promises an archive, so that a compressed file which then
 * turns out to hold no tar is refused instead of being kept as the single file that it is.
 */
export type Recognised =
  | { readonly as: 'file' }
  | { readonly as: 'archive'; readonly kind: ArchiveKind; readonly promised: boolean };

/**
 * Formats of their own that happen to be zip inside (models, tables, documents, packages): who uploads `model.pt` wants that file, not
 * its insides. The one place where a name wins over the content.
 */
const ZIP_INSIDE =
  /\.(pt|pth|ckpt|npz|keras|mar|whl|egg|jar|war|apk|aar|nupkg|docx|xlsx|pptx|odt|ods|odp|epub|3mf|kmz|usdz)$/i;

const NAMES: readonly (readonly [RegExp, ArchiveKind])[] = [
  [/\.tar$/i, 'tar'],
  [/\.(tar\.gz|tgz|taz)$/i, 'tar.gz'],
  [/\.(tar\.bz2|tbz2?|tz2)$/i, 'tar.bz2'],
  [/\.(tar\.xz|txz)$/i, 'tar.xz'],
  [/\.(tar\.lzma|tlz)$/i, 'tar.lzma'],
  [/\.(tar\.zstd?|tzst)$/i, 'tar.zst'],
  [/\.zip$/i, 'zip'],
];

/**
 * Recognises an upload by its content first and its name second. Throws a Refusal when the name promises an archive and the content is
 * nothing of the kind: such an upload is broken, and storing it silently would help nobody.
 */
export function recognise(head: Buffer, name: string): Recognised {
  const promise = NAMES.find(([pattern]) => pattern.test(name))?.[1] ?? null;
  const kind = kindOf(head, promise);
  if (kind === 'zip' && ZIP_INSIDE.test(name)) return { as: 'file' };
  if (kind !== null) return { as: 'archive', kind, promised: promise !== null };
  if (promise !== null) throw new Refusal(`the name ends like a ${promise} archive, but the content is not one`);
  return { as: 'file' };
}

function kindOf(head: Buffer, promise: ArchiveKind | null): ArchiveKind | null {
  const starts = (hex: string) => head.subarray(0, hex.length / 2).equals(Buffer.from(hex, 'hex'));
  if (starts('1f8b08')) return 'tar.gz';
  // "BZh", a level, then the first block's or the end's magic number.
  if (/^BZh[1-9]$/.test(head.toString('latin1', 0, 4)) && /^(314159265359|177245385090)$/.test(hex(head, 4, 10)))
    return 'tar.bz2';
  if (starts('fd377a585a00')) return 'tar.xz';
  if (starts('28b52ffd')) return 'tar.zst';
  // A local header, or the end record of an empty archive.
  if (starts('504b0304') || starts('504b0506')) return 'zip';
  if (head.length >= 512 && looksLikeTar(head)) return 'tar';
  if (looksLikeLzma(head, promise)) return 'tar.lzma';
  // A tar of nothing is two blocks of zeros, which only its name tells from any other zeros.
  if (promise === 'tar' && head.length >= 512 && head.every((byte) => byte === 0)) return 'tar';
  return null;
}

function hex(head: Buffer, from: number, to: number): string {
  return head.toString('hex', from, to);
}

/**
 * A tar has no magic number that all its dialects share, but each header carries its own checksum: the sum of its bytes, with the
 * checksum's own field counted as blanks (POSIX.1-1988 ustar; v7 the same). Some old writers summed signed bytes.
 */
export function looksLikeTar(block: Buffer): boolean {
  const expected = octalIn(block, 148, 156);
  if (expected === null || block[0] === undefined) return false;
  let sum = 8 * 32;
  let high = 0;
  // An indexed loop, because this runs over every header of a million.
  for (let at = 0; at < 512; at++) {
    if (at === 148) at = 156;
    const byte = block[at] ?? 0;
    sum += byte;
    high += byte >>> 7;
  }
  return expected === sum || expected === sum - 256 * high;
}

/** Blanks, octal digits, then blanks or NULs to the field's end, as tar writes its numbers; null for anything else and for no digit. */
export function octalIn(block: Buffer, from: number, to: number): number | null {
  let at = from;
  while (at < to && block[at] === 0x20) at++;
  const first = at;
  let value = 0;
  for (; at < to; at++) {
    const digit = (block[at] ?? 0) - 0x30;
    if (digit < 0 || digit > 7) break;
    value = value * 8 + digit;
  }
  const digits = at - first;
  while (at < to && (block[at] === 0x20 || block[at] === 0)) at++;
  return digits > 0 && at === to ? value : null;
}

/**
 * lzma-alone has no magic number either: a properties byte, the dictionary's size and the content's size. `xz` itself takes a file for
 * one when the dictionary is 2^n or 2^n + 2^(n-1) and the size is unknown or below 256 GiB (liblzma, alone_decoder.c); so do we, and
 * where the name does not say so we want the properties that every common writer uses.
 */
function looksLikeLzma(head: Buffer, promise: ArchiveKind | null): boolean {
  if (head.length < 14 || (head[0] ?? 255) >= 225) return false;
  if (promise !== 'tar.lzma' && head[0] !== 0x5d) return false;
  const dictionary = head.readUInt32LE(1);
  const low = 2 ** Math.floor(Math.log2(dictionary));
  const legal = dictionary === 0xffffffff || (dictionary >= 4096 && (dictionary === low || dictionary === low * 1.5));
  const size = head.readBigUInt64LE(5);
  return legal && (size === 0xffff_ffff_ffff_ffffn || size < 2n ** 38n);
}
