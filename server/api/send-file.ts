import type { FileHandle } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import contentDisposition from 'content-disposition';
import type { Request, Response } from 'express';
import { AppError } from '../core/errors.ts';

/** A file that is open already: whoever opened it has made sure that the caller may have it. */
export interface OpenFile {
  readonly handle: FileHandle;
  /** Bytes; what the file grows by after this is not sent. */
  readonly size: number;
  readonly mtimeMs: number;
  /** The name that a browser saves it under; any text. */
  readonly name: string;
  readonly contentType: string;
  readonly disposition: 'attachment' | 'inline';
}

const CHUNK_BYTES = 262_144;

/**
 * Answers with the file: Range (one range, also a suffix), If-Range, ETag, Last-Modified, If-None-Match, If-Modified-Since, HEAD.
 * Several ranges in one request are answered with the whole file, as RFC 9110 14.2 allows. Closes the handle whatever happens;
 * resolves when the answer is out or the client has gone away. Throws `range_not_satisfiable`.
 *
 * The bytes are a stranger's: the headers make sure that no browser runs them, whatever they are.
 */
export async function sendOpenFile(req: Request, res: Response, file: OpenFile): Promise<void> {
  try {
    // A job may give its files any time; RFC 9110 8.8.2.1 wants none that is to come.
    const lastModified = new Date(Math.floor(Math.min(Math.max(file.mtimeMs, 0), Date.now()) / 1000) * 1000);
    const etag = `"${file.size.toString(16)}-${Math.round(file.mtimeMs * 1000).toString(16)}"`;
    const validators = {
      ETag: etag,
      'Last-Modified': lastModified.toUTCString(),
      'Cache-Control': 'private, no-cache',
    };
    if (isFresh(req, etag, lastModified)) {
      res.set(validators).status(304).end();
      return;
    }
    const wanted = req.method === 'GET' && ifRangeHolds(req, etag, lastModified) ? rangeOf(req, file.size) : null;
    if (wanted === 'unsatisfiable') {
      res.set('Content-Range', `bytes */${file.size}`);
      throw new AppError(
        'range_not_satisfiable',
        `the file has ${file.size} bytes; ask for a range that begins inside`,
      );
    }
    const { start, end } = wanted ?? { start: 0, end: file.size - 1 };
    res.set({
      ...validators,
      'Accept-Ranges': 'bytes',
      'Content-Length': String(end - start + 1),
      'Content-Disposition': contentDisposition(file.name, { type: file.disposition }),
      'Content-Security-Policy': "default-src 'none'; sandbox",
      'X-Content-Type-Options': 'nosniff',
    });
    res.setHeader('Content-Type', file.contentType);
    if (wanted !== null) res.status(206).set('Content-Range', `bytes ${start}-${end}/${file.size}`);
    if (req.method === 'HEAD' || end < start) res.end();
    else await stream(file.handle, start, end, res);
  } finally {
    await file.handle.close();
  }
}

async function stream(handle: FileHandle, start: number, end: number, res: Response): Promise<void> {
  const source = handle.createReadStream({ start, end, autoClose: false, highWaterMark: CHUNK_BYTES });
  try {
    await pipeline(source, res, { end: false });
  } catch {
    // The client went away, or the disk failed half-way: cutting the connection is the only way left to say so.
    res.destroy();
    return;
  }
  // A file that shrank under us has sent less than was promised; the client would wait for the rest for ever.
  if (source.bytesRead < end - start + 1) res.destroy();
  else res.end();
}

interface Range {
  readonly start: number;
  readonly end: number;
}

/** RFC 9110 14.1.2. Null: no range, one that we need not understand, or several. `end` is inclusive. */
function rangeOf(req: Request, size: number): Range | 'unsatisfiable' | null {
  const match = /^bytes=[ \t]*(?:(\d{1,16})-(\d{0,16})|-(\d{1,16}))[ \t]*$/i.exec(req.headers.range ?? '');
  if (match === null) return null;
  const [, first, last, suffix] = match;
  if (first === undefined) {
    const length = Math.min(Number(suffix), size);
    return length === 0 ? 'unsatisfiable' : { start: size - length, end: size - 1 };
  }
  const start = Number(first);
  if (last !== '' && Number(last) < start) return null;
  if (start >= size) return 'unsatisfiable';
  return { start, end: last === '' ? size - 1 : Math.min(Number(last), size - 1) };
}

/** RFC 9110 13.1.5: a strong tag, or the very date; a date younger than a second may hide a second change. */
function ifRangeHolds(req: Request, etag: string, lastModified: Date): boolean {
  const value = req.headers['if-range'];
  if (value === undefined) return true;
  if (typeof value === 'string' && /^(W\/)?"/.test(value)) return value === etag;
  return Date.parse(String(value)) === lastModified.getTime() && Date.now() - lastModified.getTime() > 2000;
}

/** RFC 9110 13.1.2 and 13.1.3: If-None-Match, and If-Modified-Since only without it. */
function isFresh(req: Request, etag: string, lastModified: Date): boolean {
  const tags = req.headers['if-none-match'];
  if (tags !== undefined) {
    return tags.trim() === '*' || tags.split(',').some((tag) => tag.trim().replace(/^W\//, '') === etag);
  }
  const since = Date.parse(req.headers['if-modified-since'] ?? '');
  return !Number.isNaN(since) && lastModified.getTime() <= since;
}

const TYPES: Readonly<Record<string, string>> = {
  json: 'application/json',
  txt: 'text/plain; charset=utf-8',
  log: 'text/plain; charset=utf-8',
  csv: 'text/csv; charset=utf-8',
  png: 'image/png',
  jpg: 'image/jpeg',
  jpeg: 'image/jpeg',
};

/** The type that a job's file is sent with: a few that cannot do harm, and plain bytes for all else (HTML and SVG above all). */
export function contentTypeOf(path: string): string {
  const extension = /\.([a-z0-9]+)$/i.exec(path)?.[1]?.toLowerCase() ?? '';
  return Object.hasOwn(TYPES, extension) ? (TYPES[extension] ?? '') : 'application/octet-stream';
}
