import { createHash, type Hash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { Writable } from 'node:stream';
import { AppError } from '../core/errors.ts';
import { HEAD_BYTES } from './archive-kind.ts';

export interface SinkOptions {
  readonly path: string;
  readonly maxBytes: number;
  /** Asked every 64 MiB; throws when there is no room for more. */
  readonly checkSpace: () => Promise<void>;
  /** Whether the bytes will stay as they are, judged by their start: then they go to the disk while more are coming. */
  readonly staysAsIs: (head: Buffer) => boolean;
}

export interface Received {
  readonly bytes: number;
  readonly sha256: string;
  readonly head: Buffer;
}

const SPACE_EVERY_BYTES = 64 * 1024 * 1024;
const FLUSH_EVERY_BYTES = 32 * 1024 * 1024;

/**
 * Where an upload's bytes go: to a file and through SHA-256 on the way. Small pieces that pile up while the disk is busy are written in
 * one call; what piles up is bounded, so memory is flat whatever the upload's size.
 */
export class UploadSink extends Writable {
  readonly #options: SinkOptions;
  readonly #hash: Hash = createHash('sha256');
  #file: FileHandle | null = null;
  #head: Buffer = Buffer.alloc(0);
  #bytes = 0;
  #untilSpace = SPACE_EVERY_BYTES;
  #untilFlush = FLUSH_EVERY_BYTES;
  #flushing: Promise<void> | null = null;

  constructor(options: SinkOptions) {
    super({ highWaterMark: 4 * 1024 * 1024, emitClose: true });
    this.#options = options;
  }

  /** What came, once the stream has finished. */
  received(): Received {
    return { bytes: this.#bytes, sha256: this.#hash.digest('hex'), head: this.#head };
  }

  override _construct(callback: (error?: Error | null) => void): void {
    open(this.#options.path, 'wx', 0o600).then((file) => {
      this.#file = file;
      callback();
    }, callback);
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#take([chunk]).then(() => callback(), callback);
  }

  override _writev(chunks: { chunk: Buffer }[], callback: (error?: Error | null) => void): void {
    this.#take(chunks.map(({ chunk }) => chunk)).then(() => callback(), callback);
  }

  override _final(callback: (error?: Error | null) => void): void {
    Promise.resolve(this.#flushing).then(() => callback(), callback);
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    const close = async () => {
      await this.#flushing?.catch(() => {});
      await this.#file?.close();
    };
    close().then(() => callback(error), callback);
  }

  async #take(chunks: readonly Buffer[]): Promise<void> {
    const file = this.#file;
    if (file === null) throw new Error('the file is not open');
    const bytes = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
    if (this.#bytes + bytes > this.#options.maxBytes) throw tooLarge(this.#options.maxBytes);
    if (this.#head.length < HEAD_BYTES) {
      this.#head = Buffer.from(Buffer.concat([this.#head, ...chunks]).subarray(0, HEAD_BYTES));
    }
    // The disk works while the processor hashes.
    const written = writeAll(file, chunks);
    for (const chunk of chunks) this.#hash.update(chunk);
    await written;
    this.#bytes += bytes;
    this.#untilSpace -= bytes;
    this.#untilFlush -= bytes;
    if (this.#untilSpace < 0) {
      this.#untilSpace = SPACE_EVERY_BYTES;
      await this.#options.checkSpace();
    }
    if (this.#untilFlush < 0 && this.#flushing === null && this.#options.staysAsIs(this.#head)) this.#flush(file);
  }

  /** Starts to bring to the disk what is there, so that little is left to wait for at the end. */
  #flush(file: FileHandle): void {
    this.#untilFlush = FLUSH_EVERY_BYTES;
    this.#flushing = file.datasync().finally(() => {
      this.#flushing = null;
    });
    // A failure is met again at the end, by the one who waits.
    this.#flushing.catch(() => {});
  }
}

export function tooLarge(maxBytes: number): AppError {
  return new AppError(
    'too_large',
    `the file is larger than ${maxBytes} bytes, which is the most that is allowed (JR_MAX_UPLOAD_BYTES)`,
  );
}

async function writeAll(file: FileHandle, chunks: readonly Buffer[]): Promise<void> {
  const wanted = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  try {
    const { bytesWritten } = await file.writev([...chunks]);
    if (bytesWritten === wanted) return;
    // A full disk writes what fits; the rest tells why.
    const rest = Buffer.concat(chunks).subarray(bytesWritten);
    for (let done = 0; done < rest.length; ) done += (await file.write(rest, done)).bytesWritten;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOSPC' || code === 'EDQUOT')
      throw new AppError('out_of_space', 'there is not enough space for the upload', { cause: error });
    throw error;
  }
}

/** The start of a file that came another way. */
export async function readHead(path: string): Promise<Buffer> {
  const file = await open(path, 'r');
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}
