import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { longName, pax, TAR_END, type TarEntry, tarEntry, tarHeader, tarOf } from './tar-maker.ts';
import { type ZipEnd, type ZipEntry, zipOf } from './zip-maker.ts';

export interface HostileArchive {
  readonly what: string;
  readonly file: string;
  readonly content: Buffer;
}

/** Where those archives that try to leave would leave traces; unique, so that a find proves it. */
export const ESCAPE = `jr-escape-${randomBytes(6).toString('hex')}`;
/** The limits that the bombs are made for. */
export const HOSTILE_LIMITS = { unpackedBytes: 48 * 1024 * 1024, entries: 3_000 } as const;

const text = { name: 'a.txt', content: 'harmless\n' };
const long = (n: number) => 'n'.repeat(n);
const up = '../'.repeat(12);

/** Tar archives of which each is hostile or broken in one way. */
export function hostileTars(): ReadonlyMap<string, Buffer> {
  const all = new Map<string, Buffer>();
  const add = (what: string, ...entries: readonly TarEntry[]) => all.set(what, tarOf(text, ...entries));
  const raw = (what: string, content: Buffer) => all.set(what, content);
  const link = (name: string, target: string, type = '2'): TarEntry => ({ name, type, target });

  add('an absolute path', { name: `/tmp/${ESCAPE}`, content: 'x' });
  add('an absolute path with many slashes', { name: `///tmp/${ESCAPE}`, content: 'x' });
  add('an absolute path in a pax header', pax({ path: `/tmp/${ESCAPE}` }), { name: 'ok', content: 'x' });
  add('an absolute GNU long name', longName(`/tmp/${ESCAPE}`), { name: 'ok', content: 'x' });
  add('an absolute folder', { name: `/tmp/${ESCAPE}/`, type: '5' });
  add('".." at the start', { name: `${up}tmp/${ESCAPE}`, content: 'x' });
  add('".." in the middle', { name: `a/../../${ESCAPE}`, content: 'x' });
  add('".." that would stay inside', { name: 'a/../b', content: 'x' });
  add('".." as a whole name', { name: '..', type: '5' });
  add('".." behind "./"', { name: `./../${ESCAPE}`, content: 'x' });
  add('".." in the prefix', { name: ESCAPE, prefix: '../..', content: 'x' });
  add('".." in a pax header', pax({ path: `${up}tmp/${ESCAPE}` }), { name: 'ok', content: 'x' });
  add('".." in a GNU long name', longName(`${up}tmp/${ESCAPE}`), { name: 'ok', content: 'x' });
  add('a symbolic link to an absolute path', link('l', '/etc/passwd'));
  add('a symbolic link upwards', link('l', '../../../etc/passwd'));
  add('a symbolic link one step out', link('l', '..'));
  add('a symbolic link out by a pax linkpath', pax({ linkpath: '/etc/passwd' }), link('l', 'a.txt'));
  add('a symbolic link out by a GNU long target', longName('/etc/passwd', 'K'), link('l', 'a.txt'));
  add('a symbolic link out through another', link('here', '.'), link('l', 'here/../x'));
  add(
    'a symbolic link out through two others',
    { name: 'd/e/', type: '5' },
    link('s', 'd/e'),
    link('t', 's/../..'),
    link('l', 't/../x'),
  );
  add('symbolic links in a circle', link('l', 'm'), link('m', 'l'));
  add('a symbolic link to itself', link('l', 'l/x'));
  add('a symbolic link to nothing', link('l', ''));
  add('a symbolic link that a file is written through', link('l', '.'), { name: 'l/x', content: 'x' });
  add('a symbolic link that a folder is made through', link('l', '/tmp'), { name: `l/${ESCAPE}/`, type: '5' });
  add('a symbolic link that a file replaces', link('l', '/etc/passwd'), { name: 'l', content: 'x' });
  add('a symbolic link in place of a folder', { name: 'd/x', content: 'x' }, link('d', '/tmp'), {
    name: `d/${ESCAPE}`,
    content: 'x',
  });
  add('a symbolic link in place of a file', link('a.txt', 'b'));
  add('a symbolic link with content', { name: 'l', type: '2', target: 'a.txt', content: 'x' });
  add('a symbolic link with a target that is no UTF-8', { name: 'l', type: '2', target: Buffer.from([0x61, 0xff]) });
  add('a hard link to an absolute path', link('h', '/etc/passwd', '1'));
  add('a hard link upwards', link('h', '../../etc/passwd', '1'));
  add('a hard link to what is not there', link('h', 'nowhere', '1'));
  add('a hard link to a folder', { name: 'd/', type: '5' }, link('h', 'd', '1'));
  add('a hard link to a symbolic link', link('l', 'a.txt'), link('h', 'l', '1'));
  add('a hard link through a symbolic link', link('l', '.'), link('h', 'l/a.txt', '1'));
  add('a character device', { name: 'dev', type: '3' });
  add('a block device', { name: 'dev', type: '4' });
  add('a FIFO', { name: 'fifo', type: '6' });
  add('a set-uid file', { name: 's', content: 'x', mode: 0o4755 });
  add('a set-gid file', { name: 's', content: 'x', mode: 0o2755 });
  add('a name that is no UTF-8', { name: Buffer.from([0x66, 0xff, 0xfe]), content: 'x' });
  add('a name in Latin-1', { name: Buffer.from('caf\xe9', 'latin1'), content: 'x' });
  add('a NUL in a pax path', pax({ path: 'ok\0/../x' }), { name: 'ok', content: 'x' });
  add('a NUL in a GNU long name', longName('ok\0evil'), { name: 'ok', content: 'x' });
  add('an empty pax path', pax({ path: '' }), { name: 'ok', content: 'x' });
  add('a name of 255 bytes', pax({ path: long(255) }), { name: 'ok', content: 'x' });
  add('a name of 300 bytes', longName(long(300)), { name: 'ok', content: 'x' });
  add('a path of 5,000 bytes', pax({ path: `${long(100)}/`.repeat(50) }), { name: 'ok', content: 'x' });
  add('a path of 500 folders', pax({ path: 'd/'.repeat(500) }), { name: 'ok', content: 'x' });
  add('one name twice', { name: 'a.txt', content: 'other' });
  add('a folder where a file is', { name: 'a.txt/', type: '5' });
  add('a file below a file', { name: 'a.txt/b', content: 'x' });
  add('a file where a folder is', { name: 'd/e', content: 'x' }, { name: 'd', content: 'x' });
  add('a folder with content', { name: 'd/', type: '5', content: 'x' });
  add('a file with the name of the top', { name: './', content: 'x' });
  add('an unknown type', { name: 'x', type: 'Z', content: 'x' });
  add('a sparse file', { name: 'x', type: 'S', content: 'x' });
  add('a sparse file in a pax header', pax({ 'GNU.sparse.major': '1', 'GNU.sparse.realsize': '9999999999' }), {
    name: 'x',
    content: 'x',
  });
  add('a part of several', { name: 'x', type: 'M', content: 'x' });
  add('a dump folder', { name: 'x', type: 'D', content: 'x' });
  add('a negative size', { name: 'x', sizeField: Buffer.from('ffffffffffffffffffffff00', 'hex') });
  add('an endless size', { name: 'x', sizeField: Buffer.from('807fffffffffffffffffffff', 'hex') });
  add('a size above the limit', { name: 'x', sizeField: '77777777777\0' });
  add('a base-256 size above the limit', { name: 'x', sizeField: Buffer.from('800000000000000100000000', 'hex') });
  add('a size that is no number', { name: 'x', sizeField: '12abc      \0', content: 'x' });
  add('a pax size above the limit', pax({ size: '99999999999' }), { name: 'x', content: 'x' });
  add('a pax size that is no number', pax({ size: '-1' }), { name: 'x', content: 'x' });
  add('a wrong checksum', { name: 'x', content: 'x', checksumError: 1 });
  add('a pax header of 2 MiB', pax({ comment: long(2 * 1024 * 1024) }), { name: 'x', content: 'x' });
  add(
    'a pax header with a wrong length',
    { name: 'p', type: 'x', content: '999 path=x\n' },
    { name: 'x', content: 'x' },
  );
  add('a pax header without a length', { name: 'p', type: 'x', content: 'path=x\n' }, { name: 'x', content: 'x' });
  add(
    'a pax header that says a path twice',
    { name: 'p', type: 'x', content: '8 path=a\n8 path=b\n'.replaceAll('8', '9') },
    { name: 'x', content: 'x' },
  );
  add('two pax headers for one entry', pax({ path: 'p' }), pax({ path: 'q' }), { name: 'x', content: 'x' });
  add('two GNU long names for one entry', longName('p'), longName('q'), { name: 'x', content: 'x' });
  add('a pax path and a GNU long name', pax({ path: 'p' }), longName('q'), { name: 'x', content: 'x' });
  add('a global header that sets the path', pax({ path: 'p' }, 'g'), { name: 'x', content: 'x' });
  add('a GNU long name of 2 MiB', longName(long(2 * 1024 * 1024)), { name: 'x', content: 'x' });
  add('a pax header for no entry', pax({ path: 'p' }));
  raw('a header cut in the middle', Buffer.concat([tarEntry(text), tarHeader(text).subarray(0, 300)]));
  raw('no end mark', tarEntry(text));
  raw(
    'content cut in the middle',
    Buffer.concat([tarHeader({ name: 'x', content: Buffer.alloc(5000) }), Buffer.alloc(1000)]),
  );
  raw('other data behind the end', Buffer.concat([tarOf(text), Buffer.from('more'), Buffer.alloc(508)]));
  raw('a second archive behind the end', Buffer.concat([tarOf(text), tarOf({ name: 'b', content: 'x' })]));
  raw('garbage between entries', Buffer.concat([tarEntry(text), Buffer.alloc(512, 0x41), tarOf(text)]));
  raw(
    'too many entries',
    Buffer.concat([
      ...Array.from({ length: HOSTILE_LIMITS.entries + 1 }, (_, i) => tarHeader({ name: `f${i}` })),
      TAR_END,
    ]),
  );
  raw(
    'too many folders',
    Buffer.concat([
      ...Array.from({ length: HOSTILE_LIMITS.entries + 1 }, (_, i) => tarHeader({ name: `d${i}/`, type: '5' })),
      TAR_END,
    ]),
  );
  return all;
}

const PACKERS: readonly (readonly [string, readonly string[]])[] = [
  ['tar.gz', ['gzip', '-1c']],
  ['tar.bz2', ['bzip2', '-1c']],
  ['tar.xz', ['xz', '-0c']],
  ['tar.lzma', ['xz', '-0c', '--format=lzma']],
  ['tar.zst', ['zstd', '-1qc']],
];

export function packed(content: Buffer, command: readonly string[]): Buffer {
  const [program = '', ...argv] = command;
  return execFileSync(program, argv, { input: content, maxBuffer: 1024 ** 3 });
}

/** What is hostile about the compression itself. */
function hostileStreams(): readonly HostileArchive[] {
  const bomb = Buffer.concat([
    tarHeader({ name: 'zeros', sizeField: (HOSTILE_LIMITS.unpackedBytes * 2).toString(8).padStart(11, '0') }),
    Buffer.alloc(HOSTILE_LIMITS.unpackedBytes * 2),
    TAR_END,
  ]);
  const many = Buffer.concat([
    ...Array.from({ length: 60 }, (_, i) => tarEntry({ name: `f${i}`, content: Buffer.alloc(1024 * 1024) })),
    TAR_END,
  ]);
  const padding = Buffer.concat([tarOf(text), Buffer.alloc(80 * 1024 * 1024)]);
  const large = tarOf({ name: 'r', content: randomBytes(200_000) });
  return PACKERS.flatMap(([ending, command]) => {
    const sound = packed(large, command);
    const flipped = Buffer.from(sound);
    flipped[Math.floor(sound.length / 2)] = (flipped[Math.floor(sound.length / 2)] ?? 0) ^ 0xff;
    const cases: readonly (readonly [string, Buffer])[] = [
      ['a few bytes that become one huge file', packed(bomb, command)],
      ['a few bytes that become many files', packed(many, command)],
      ['a few bytes that become endless padding', packed(padding, command)],
      ['a truncated stream', sound.subarray(0, Math.floor(sound.length * 0.6))],
      ['a stream without its last bytes', sound.subarray(0, sound.length - 4)],
      ['other data behind the stream', Buffer.concat([sound, Buffer.from('trailing data')])],
      ['a damaged stream', flipped],
      ['a name that promises a tar over one that is none', packed(Buffer.from('only text'), command)],
      ['an empty tar', packed(Buffer.alloc(10_240), command)],
      ['a name that promises what the content is not', Buffer.from(`this is no ${ending}`)],
    ];
    return cases.map(([what, content]) => ({ what, file: `x.${ending}`, content }));
  });
}

export function hostileZips(): readonly HostileArchive[] {
  const all: HostileArchive[] = [];
  const add = (what: string, entries: readonly ZipEntry[], end: ZipEnd = {}) =>
    all.push({ what, file: 'x.zip', content: zipOf([text, ...entries], end) });
  const raw = (what: string, content: Buffer) => all.push({ what, file: 'x.zip', content });
  const symlink = (name: string, content: string): ZipEntry => ({ name, content, mode: 0o120777 });
  add('an absolute path', [{ name: `/tmp/${ESCAPE}`, content: 'x' }]);
  add('".." at the start', [{ name: `${up}tmp/${ESCAPE}`, content: 'x' }]);
  add('".." in the middle', [{ name: `a/../../${ESCAPE}`, content: 'x' }]);
  add('".." with backslashes', [{ name: `..\\..\\${ESCAPE}`, content: 'x' }]);
  add("a path with Windows' drive", [{ name: `C:\\${ESCAPE}`, content: 'x' }]);
  add('an empty name', [{ name: '', content: 'x' }]);
  add('a NUL in a name', [{ name: 'ok\0/../x', content: 'x' }]);
  add('a name that is no UTF-8', [{ name: Buffer.from([0x66, 0xff]), content: 'x' }]);
  add('a name of 255 bytes', [{ name: long(255), content: 'x' }]);
  add('a path of 5,000 bytes', [{ name: `${long(100)}/`.repeat(50), content: '' }]);
  add('a path of 500 folders', [{ name: 'd/'.repeat(500), content: '' }]);
  add('a symbolic link to an absolute path', [symlink('l', '/etc/passwd')]);
  add('a symbolic link upwards', [symlink('l', '../../etc/passwd')]);
  add('a symbolic link out through another', [symlink('here', '.'), symlink('l', 'here/../x')]);
  add('a symbolic link that a file is written through', [symlink('l', '/tmp'), { name: `l/${ESCAPE}`, content: 'x' }]);
  add('a symbolic link that a file replaces', [symlink('l', '/etc/passwd'), { name: 'l', content: 'x' }]);
  add('a symbolic link with a huge target', [symlink('l', long(5000))]);
  add('symbolic links in a circle', [symlink('l', 'm'), symlink('m', 'l')]);
  add('a FIFO', [{ name: 'f', mode: 0o010644 }]);
  add('a character device', [{ name: 'f', mode: 0o020644 }]);
  add('a block device', [{ name: 'f', mode: 0o060644 }]);
  add('a socket', [{ name: 'f', mode: 0o140644 }]);
  add('a set-uid file', [{ name: 's', content: 'x', mode: 0o104755 }]);
  add('a set-gid file', [{ name: 's', content: 'x', mode: 0o102755 }]);
  add('one name twice', [{ name: 'a.txt', content: 'other' }]);
  add('a folder where a file is', [{ name: 'a.txt/', content: '' }]);
  add('a folder with content', [{ name: 'd/', content: 'x' }]);
  add('a size that is too small', [{ name: 'x', content: long(10_000), size: 10 }]);
  add('a size that is too large', [{ name: 'x', content: 'x', size: 10_000 }]);
  add('a stored size that is too small', [{ name: 'x', content: long(100), method: 0, size: 10 }]);
  add('a size above the limit', [{ name: 'x', content: 'x', size: 0xfffffff0 }]);
  add('a compressed size beyond the file', [{ name: 'x', content: 'x', compressedSize: 1_000_000 }]);
  add('a compressed size that leaves data behind', [
    {
      name: 'x',
      content: 'x',
      packed: Buffer.concat([zipPacked('x'), Buffer.alloc(50)]),
    },
  ]);
  add('a wrong checksum', [{ name: 'x', content: 'x', crc: 1 }]);
  add('broken compressed data', [{ name: 'x', content: long(100), packed: Buffer.alloc(40, 0xff) }]);
  add('truncated compressed data', [
    { name: 'x', content: randomBytes(5000), packed: zipPacked(randomBytes(5000)).subarray(0, 2000) },
  ]);
  add('another name in the local header', [{ name: 'x', localName: 'y', content: 'x' }]);
  add('another size in the local header', [{ name: 'x', content: 'x', localSize: 7 }]);
  const inner = { name: 'inner', content: 'x' };
  const nested = zipOf([inner]).subarray(0, 30 + inner.name.length + zipPacked('x').length);
  const textBytes = 30 + text.name.length + zipPacked(text.content).length;
  add('an entry within another', [
    { name: 'outer', content: nested, method: 0 },
    { ...inner, offset: textBytes + 30 + 'outer'.length },
  ]);
  add('two entries with the same bytes', [{ ...text, offset: 0 }]);
  add('an encrypted entry', [{ name: 'x', content: 'x', flags: 1 }]);
  add('a strongly encrypted entry', [{ name: 'x', content: 'x', flags: 0x41 }]);
  add('an encrypted directory', [{ name: 'x', content: 'x', flags: 0x2000 }]);
  add('an unknown method', [{ name: 'x', content: 'x', method: 99 }]);
  add('an LZMA entry', [{ name: 'x', content: 'x', method: 14 }]);
  add('an entry on another disk', [{ name: 'x', content: 'x', disk: 3 }]);
  add('a part of several', [], { disk: 2 });
  add('an entry that starts nowhere', [{ name: 'x', content: 'x', offset: 0x7fffffff }]);
  add('zip64 sizes that are not there', [{ name: 'x', content: 'x', size: 0xffffffff, compressedSize: 0xffffffff }]);
  add('a zip64 field that is too short', [
    {
      name: 'x',
      content: 'x',
      size: 0xffffffff,
      compressedSize: 0xffffffff,
      extra: Buffer.from([1, 0, 4, 0, 9, 9, 9, 9]),
    },
  ]);
  add('a zip64 size beyond all', [
    {
      name: 'x',
      content: 'x',
      size: 0xffffffff,
      extra: Buffer.concat([Buffer.from([1, 0, 8, 0]), Buffer.alloc(8, 0xff)]),
    },
  ]);
  add('a count that is too small', [{ name: 'x', content: 'x' }], { count: 1 });
  add('a count that is too large', [{ name: 'x', content: 'x' }], { count: 9 });
  add('a directory that is not where it should be', [], { directoryOffset: 3 });
  add('a directory that is larger than it is', [], { directoryBytes: 0xfffff });
  add('other data behind the end', [], { after: Buffer.from('more') });
  add('a comment that is cut', [], { comment: 'x', after: Buffer.from('y') });
  const sound = zipOf([text, { name: 'r', content: randomBytes(100_000) }]);
  raw('a truncated file', sound.subarray(0, 60_000));
  raw('a file without its last byte', sound.subarray(0, sound.length - 1));
  raw('data before the beginning', Buffer.concat([sound.subarray(0, 4), sound]));
  raw('an empty archive', zipOf([]));
  raw('a name that promises what the content is not', Buffer.from('this is no zip'));
  raw(
    'a few bytes that become one huge file',
    zipOf([{ name: 'zeros', content: Buffer.alloc(HOSTILE_LIMITS.unpackedBytes + 1) }]),
  );
  raw(
    'a few bytes that become many files',
    zipOf(Array.from({ length: 60 }, (_, i) => ({ name: `f${i}`, content: Buffer.alloc(1024 * 1024) }))),
  );
  raw('too many entries', zipOf(Array.from({ length: HOSTILE_LIMITS.entries + 1 }, (_, i) => ({ name: `f${i}` }))));
  return all;
}

function zipPacked(content: string | Buffer): Buffer {
  const whole = zipOf([{ name: '', content }]);
  return whole.subarray(30, whole.length - 22 - 46);
}

/** All of them: each tar plain and compressed, each way to break a compressed stream, each zip. */
export function hostileArchives(): readonly HostileArchive[] {
  const tars = [...hostileTars()];
  const plain = tars.map(([what, content]) => ({ what, file: 'x.tar', content }));
  // Every tar in one compressed format, so that each format sees a fifth of them.
  const compressed = tars.map(([what, content], index) => {
    const [ending, command] = PACKERS[index % PACKERS.length] ?? ['tar.gz', ['gzip', '-c']];
    return { what, file: `x.${ending}`, content: packed(content, command) };
  });
  return [...plain, ...compressed, ...hostileStreams(), ...hostileZips()];
}
