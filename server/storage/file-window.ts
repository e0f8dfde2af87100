import { readSync } from 'node:fs';
import { Refusal } from './refusal.ts';

const WINDOW_BYTES = 256 * 1024;

/** A file that is read at any place but mostly from front to back: many small reads become few. */
export class FileWindow {
  readonly #fd: number;
  readonly #buffer = Buffer.allocUnsafe(WINDOW_BYTES);
  #start = 0;
  #bytes = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** `bytes` at `offset`; what it answers is valid until the next call. Throws a Refusal when the file ends before. */
  at(offset: number, bytes: number): Buffer {
    if (bytes > WINDOW_BYTES) return this.copy(offset, bytes);
    if (offset < this.#start || offset + bytes > this.#start + this.#bytes) {
      this.#start = offset;
      this.#bytes = fill(this.#fd, this.#buffer, offset);
      if (this.#bytes < bytes) throw truncated();
    }
    return this.#buffer.subarray(offset - this.#start, offset - this.#start + bytes);
  }

  /** The same, to keep. */
  copy(offset: number, bytes: number): Buffer {
    const buffer = Buffer.allocUnsafe(bytes);
    if (fill(this.#fd, buffer, offset) < bytes) throw truncated();
    return buffer;
  }
}

function fill(fd: number, buffer: Buffer, offset: number): number {
  let done = 0;
  while (done < buffer.length) {
    const got = readSync(fd, buffer, done, buffer.length - done, offset + done);
    if (got === 0) break;
    done += got;
  }
  return done;
}

function truncated(): Refusal {
  return new Refusal('the zip archive is truncated');
}
