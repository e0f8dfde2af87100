import { readSync } from 'node:fs';

/** Reads a stream of unknown length from a file descriptor (a file or a pipe) with one buffer, and waits where there is nothing yet. */
export class BlockReader {
  readonly #fd: number;
  readonly #buffer: Buffer;
  #from = 0;
  #to = 0;

  constructor(fd: number, bufferBytes = 1024 * 1024) {
    this.#fd = fd;
    this.#buffer = Buffer.allocUnsafe(bufferBytes);
  }

  /** Exactly `bytes` (not more than the buffer holds), or less at the end. Valid until the next call. */
  take(bytes: number): Buffer {
    while (this.#to - this.#from < bytes) {
      if (this.#from > 0) {
        this.#buffer.copyWithin(0, this.#from, this.#to);
        this.#to -= this.#from;
        this.#from = 0;
      }
      const read = this.#read();
      if (read === 0) break;
    }
    const end = Math.min(this.#from + bytes, this.#to);
    const taken = this.#buffer.subarray(this.#from, end);
    this.#from = end;
    return taken;
  }

  /** Some bytes, at most `atMost`; none at the end. Valid until the next call. */
  some(atMost: number): Buffer {
    if (this.#from === this.#to) {
      this.#from = 0;
      this.#to = 0;
      this.#read();
    }
    return this.take(Math.min(atMost, this.#to - this.#from));
  }

  #read(): number {
    const read = readSync(this.#fd, this.#buffer, this.#to, this.#buffer.length - this.#to, null);
    this.#to += read;
    return read;
  }
}
