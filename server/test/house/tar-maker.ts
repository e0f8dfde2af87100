/** Writes tar archives by hand, right ones and wrong ones: a test says what is in each header. */
export interface TarEntry {
  readonly name: string | Buffer;
  readonly type?: string;
  readonly content?: Buffer | string;
  readonly target?: string | Buffer;
  readonly mode?: number;
  /** What the size field holds when it is not the content's size. */
  readonly sizeField?: Buffer | string;
  readonly prefix?: string;
  readonly magic?: string;
  /** Added to the right checksum. */
  readonly checksumError?: number;
}

export function tarHeader(entry: TarEntry): Buffer {
  const header = Buffer.alloc(512);
  const content = Buffer.from(entry.content ?? '');
  Buffer.from(entry.name).copy(header, 0, 0, 100);
  header.write(`${(entry.mode ?? 0o644).toString(8).padStart(7, '0')}\0`, 100, 'latin1');
  header.write('0000000\0', 108, 'latin1');
  header.write('0000000\0', 116, 'latin1');
  const size = entry.sizeField ?? `${content.length.toString(8).padStart(11, '0')}\0`;
  Buffer.from(size).copy(header, 124, 0, 12);
  header.write('00000000000\0', 136, 'latin1');
  header.write('        ', 148, 'latin1');
  header.write(entry.type ?? '0', 156, 'latin1');
  Buffer.from(entry.target ?? '').copy(header, 157, 0, 100);
  header.write(entry.magic ?? 'ustar\u000000', 257, 'latin1');
  header.write(entry.prefix ?? '', 345, 'latin1');
  const sum = header.reduce((total, byte) => total + byte, 0) + (entry.checksumError ?? 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return header;
}

export function tarEntry(entry: TarEntry): Buffer {
  const content = Buffer.from(entry.content ?? '');
  return Buffer.concat([tarHeader(entry), content, Buffer.alloc((512 - (content.length % 512)) % 512)]);
}

export const TAR_END = Buffer.alloc(1024);

export function tarOf(...entries: readonly TarEntry[]): Buffer {
  return Buffer.concat([...entries.map(tarEntry), TAR_END]);
}

export function pax(records: Readonly<Record<string, string>>, type = 'x'): TarEntry {
  const content = Object.entries(records)
    .map(([key, value]) => {
      const rest = Buffer.byteLength(` ${key}=${value}\n`);
      let length = rest + String(rest).length;
      length = rest + String(length).length;
      return `${length} ${key}=${value}\n`;
    })
    .join('');
  return { name: 'PaxHeaders/x', type, content };
}

export function longName(name: string, type = 'L'): TarEntry {
  return { name: '././@LongLink', type, content: `${name}\0`, magic: 'ustar  \0' };
}
