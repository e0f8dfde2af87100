import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readlinkSync,
  readSync,
  realpathSync,
  statfsSync,
  writeSync,
} from 'node:fs';
import type { ChildAnswer, ChildOrder } from './unpack-order.ts';

const CHUNK_BYTES = 1024 * 1024;
const SPACE_EVERY_BYTES = 64 * 1024 * 1024;
const TARGET_FD = 3;
/** An empty line on standard output tells that the copy moves on. */
const SIGN_OF_LIFE_MS = 1000;

type Order = Extract<ChildOrder, { do: 'copy' }>;

/**
 * Copies a file that lies below one of `roots` to descriptor 3 and hashes it on the way. The file is opened first and asked afterwards
 * where it really is, so that no link and no swap leads anywhere else. Every call here may hang for as long as a bucket's mount does:
 * that is why it runs in a process that can be killed.
 */
export function copyFrom(order: Order): ChildAnswer {
  let fd: number;
  try {
    // Without O_NONBLOCK the open of a FIFO would wait for a writer.
    fd = openSync(order.path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    return notOpened((error as NodeJS.ErrnoException).code ?? 'unknown error');
  }
  const real = readlinkSync(`/proc/self/fd/${fd}`);
  if (!nearestFirst(order).some((root) => isBelow(real, root))) {
    return refused('forbidden', 'src_path leads out of the folders that may be imported from');
  }
  const found = fstatSync(fd);
  if (found.isDirectory())
    return refused('invalid', 'src_path is a folder; it must be a file (pack the folder as a tar)');
  if (!found.isFile()) return refused('forbidden', 'src_path is not a regular file');
  if (found.size > order.maxBytes) return tooLarge(order);
  const hash = createHash('sha256');
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  let bytes = 0;
  let untilSpace = 0;
  let lastSign = Date.now();
  for (;;) {
    const read = readSync(fd, chunk, 0, CHUNK_BYTES, null);
    if (read === 0) break;
    bytes += read;
    if (bytes > order.maxBytes) return tooLarge(order);
    untilSpace -= read;
    if (untilSpace < 0) {
      untilSpace = SPACE_EVERY_BYTES;
      const { bavail, bsize } = statfsSync('.');
      if (bavail * bsize - Math.max(0, found.size - bytes) < order.minFreeBytes) {
        return refused('out_of_space', `the copy would leave less than ${order.minFreeBytes} bytes free`);
      }
    }
    hash.update(chunk.subarray(0, read));
    for (let done = 0; done < read; ) done += writeSync(TARGET_FD, chunk, done, read - done);
    if (Date.now() - lastSign > SIGN_OF_LIFE_MS) {
      lastSign = Date.now();
      writeSync(1, '\n');
    }
  }
  // A mount that died may answer "end of file": only what is complete is the file.
  if (bytes < found.size)
    return refused('unavailable', 'the source ended before its end: the bucket or the disk failed, try again');
  closeSync(fd);
  return { did: 'copied', bytes, sha256: hash.digest('hex') };
}

/** The roots that the path names first: to ask where another one is would wait for it, should it be a mount that hangs. */
function nearestFirst({ path, roots }: Order): readonly string[] {
  const named = (root: string) => (path.startsWith(root) ? 0 : 1);
  return [...roots].sort((a, b) => named(a) - named(b));
}

function isBelow(real: string, root: string): boolean {
  let top: string;
  try {
    top = realpathSync(root);
  } catch {
    return false;
  }
  return real.startsWith(top === '/' ? '/' : `${top}/`);
}

function notOpened(code: string): ChildAnswer {
  if (code === 'ENOENT' || code === 'ENOTDIR') return refused('not_found', 'there is no file at src_path');
  if (code === 'EACCES' || code === 'EPERM' || code === 'ELOOP')
    return refused('forbidden', 'the file at src_path may not be read');
  if (code === 'ENAMETOOLONG') return refused('invalid', 'src_path is too long');
  if (code === 'ENXIO' || code === 'ENODEV') return refused('forbidden', 'src_path is not a regular file');
  return refused('unavailable', `the file at src_path cannot be read now (${code})`);
}

function tooLarge(order: Order): ChildAnswer {
  return refused('too_large', `the file is larger than ${order.maxBytes} bytes, which is the most that is allowed`);
}

function refused(code: Extract<ChildAnswer, { did: 'refused' }>['code'], message: string): ChildAnswer {
  return { did: 'refused', code, message };
}
