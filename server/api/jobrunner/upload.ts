import { pipeline } from 'node:stream/promises';
import type { Request, Response } from 'express';
import multer from 'multer';
import { AppError } from '../../core/errors.ts';
import type { Datasets, Upload } from '../../runner/datasets.ts';
import { tooLarge } from '../../storage/upload-sink.ts';
import { BODY_LIMITS } from '../body.ts';
import { uploadFields } from './datasets.wire.ts';

export interface UploadLimits {
  readonly uploadBytes: number;
}

/** What a form around the file may weigh: boundaries, headers, the other fields. */
const FORM_BYTES = 1024 * 1024;
/** How long a refused client may go on sending before it is cut off; most stop when they see the answer. */
const LINGER_MS = 10_000;

/**
 * Reads a form with one file `file` and an optional `sha256`, the file straight into staging. Nothing is left there when it throws:
 * broken form, client gone, file too large, disk full.
 */
export async function receiveUpload(
  req: Request,
  res: Response,
  datasets: Datasets,
  limits: UploadLimits,
): Promise<{ readonly upload: Upload; readonly sha256: string | undefined }> {
  if (!req.is('multipart/form-data')) {
    throw new AppError(
      'unsupported_media_type',
      'the body must be multipart/form-data with a file in the part `file` (curl -F file=@data.tar.gz)',
    );
  }
  const announced = Number(req.headers['content-length'] ?? 0);
  cutOffWhenRefused(req, res);
  if (announced > limits.uploadBytes + FORM_BYTES) throw tooLarge(limits.uploadBytes);
  let upload: Upload | null = null;
  let begun: Promise<unknown> = Promise.resolve();
  const failure = deferredFailure();
  const receive = async (file: Express.Multer.File): Promise<Upload> => {
    const { staging, sink } = await datasets.begin(file.originalname, announced);
    try {
      await pipeline(file.stream, sink);
      return { staging, name: file.originalname, ...sink.received() };
    } catch (error) {
      await datasets.discard(staging);
      throw error;
    }
  };
  const storage: multer.StorageEngine = {
    _handleFile(_req, file, done) {
      // An unread stream that breaks before somebody listens would take the process with it.
      file.stream.on('error', () => {});
      const received = receive(file).then((one) => {
        upload = one;
      });
      begun = received.catch(() => {});
      received.then(
        () => done(null, {}),
        (error: unknown) => {
          // multer would read the rest of the body before it tells: a client with a terabyte to go is told at once.
          failure.fail(error);
          done(error);
        },
      );
    },
    _removeFile: (_req, _file, done) => done(null),
  };
  const form = multer({
    storage,
    defParamCharset: 'utf8',
    // What is a name and what a path is for `fileNameFrom` alone to say.
    preservePath: true,
    limits: { fields: 20, parts: 30, fieldSize: BODY_LIMITS.bytes, fieldNameSize: BODY_LIMITS.fieldNameBytes },
  });
  try {
    await Promise.race([run(form, req, res), failure.promise]);
    const fields = fieldsOf(req.body);
    if (upload === null) throw missingFile(req.body);
    return { upload, sha256: fields.sha256 };
  } catch (error) {
    // The file may have been received in full although the form around it is wrong.
    await begun;
    const received = upload as Upload | null;
    if (received !== null) await datasets.discard(received.staging);
    throw error;
  }
}

function run(form: multer.Multer, req: Request, res: Response): Promise<void> {
  return new Promise((resolve, reject) => {
    form.single('file')(req, res, (error: unknown) => {
      if (error === undefined || error === null) resolve();
      else reject(asClientFault(req, error));
    });
  });
}

/** Node's words for a client that went away; nobody will read the answer, and it is no fault of ours to log. */
function asClientFault(req: Request, error: unknown): unknown {
  const gone = req.destroyed || /aborted|closed|premature/i.test(error instanceof Error ? error.message : '');
  return gone && !(error instanceof AppError) && !req.complete
    ? new AppError('invalid', 'the multipart body is broken: it ended before its end', { cause: error })
    : error;
}

function fieldsOf(body: unknown): { readonly sha256?: string | undefined } {
  const { file: _, ...rest } = { ...(body as Record<string, unknown>) };
  const parsed = uploadFields.safeParse(rest);
  if (parsed.success) return parsed.data;
  const fields = parsed.error.issues.flatMap((issue) =>
    issue.code === 'unrecognized_keys'
      ? issue.keys
          .slice(0, 20)
          .map((key) => ({ field: key.slice(0, 100), message: 'is not a field of this call (allowed: file, sha256)' }))
      : [{ field: issue.path.map(String).join('.'), message: issue.message }],
  );
  throw new AppError('invalid', fields.map(({ field, message }) => `${field}: ${message}`).join('; '), { fields });
}

function missingFile(body: unknown): AppError {
  const asText = Object.hasOwn({ ...(body as object) }, 'file');
  const message = asText
    ? 'must be sent as a file with a name, not as text (curl -F file=@data.tar.gz)'
    : 'is missing: one file must be sent (curl -F file=@data.tar.gz)';
  return new AppError('invalid', `file: ${message}`, { fields: [{ field: 'file', message }] });
}

/** Answering early must not leave a connection on which a client sends on for ever. */
function cutOffWhenRefused(req: Request, res: Response): void {
  res.once('finish', () => {
    if (req.complete) return;
    req.resume();
    const timer = setTimeout(() => {
      if (!req.complete) req.destroy();
    }, LINGER_MS);
    timer.unref();
    req.once('close', () => clearTimeout(timer));
  });
}

function deferredFailure(): { readonly promise: Promise<never>; readonly fail: (error: unknown) => void } {
  let fail: (error: unknown) => void = () => {};
  const promise = new Promise<never>((_, reject) => {
    fail = reject;
  });
  promise.catch(() => {});
  return { promise, fail };
}
