import type { FileHandle } from 'node:fs/promises';
import type { Request, Response } from 'express';
import { AppError } from '../core/errors.ts';
import { sendOpenFile } from './send-file.ts';

/** Sends an open text file and closes it; a file that is not there yet is an empty one. */
export async function sendTextFile(
  req: Request,
  res: Response,
  handle: FileHandle | null,
  name: string,
): Promise<void> {
  if (handle !== null) {
    const { size, mtimeMs } = await handle.stat();
    const contentType = 'text/plain; charset=utf-8';
    return sendOpenFile(req, res, { handle, size, mtimeMs, name, contentType, disposition: 'inline' });
  }
  if (req.range(0) === -1) {
    res.setHeader('Content-Range', 'bytes */0');
    throw new AppError('range_not_satisfiable', 'there is nothing yet: the file has 0 bytes');
  }
  res.type('text/plain').setHeader('Content-Length', 0);
  res.end();
}
