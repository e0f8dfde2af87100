import type { FileHandle } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import type { Request, Response } from 'express';
import { AppError } from '../core/errors.ts';

/**
 * Sends an open text file, or the range that the request asks for (RFC 9110, 14.2), and closes it. The file may grow meanwhile: what
 * is sent ends where it ended when it was opened. A request for several ranges gets the whole file, which the RFC allows.
 */
export async function sendTextFile(req: Request, res: Response, file: FileHandle | null): Promise<void> {
  res.type('text/plain');
  res.setHeader('Cache-Control', 'no-store');
  res.setHeader('Accept-Ranges', 'bytes');
  if (file === null) {
    if (req.range(0) === -1) throw unsatisfiable(res, 0);
    res.setHeader('Content-Length', 0);
    res.end();
    return;
  }
  try {
    const { size } = await file.stat();
    const ranges = req.range(size);
    if (ranges === -1) throw unsatisfiable(res, size);
    const range = Array.isArray(ranges) && ranges.type === 'bytes' && ranges.length === 1 ? ranges[0] : undefined;
    const { start, end } = range ?? { start: 0, end: size - 1 };
    if (range !== undefined) {
      res.status(206);
      res.setHeader('Content-Range', `bytes ${start}-${end}/${size}`);
    }
    res.setHeader('Content-Length', end - start + 1);
    if (req.method === 'HEAD' || size === 0) {
      res.end();
      return;
    }
    await pipeline(file.createReadStream({ start, end, autoClose: false }), res).catch((error: unknown) => {
      // The client hung up; there is nobody to tell.
      if ((error as NodeJS.ErrnoException).code !== 'ERR_STREAM_PREMATURE_CLOSE') throw error;
    });
  } finally {
    await file.close();
  }
}

function unsatisfiable(res: Response, size: number): AppError {
  res.setHeader('Content-Range', `bytes */${size}`);
  return new AppError('range_not_satisfiable', `the range lies outside the file, which has ${size} bytes`);
}
