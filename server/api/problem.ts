import { STATUS_CODES } from 'node:http';
import type { ErrorRequestHandler, Request, RequestHandler } from 'express';
import multer from 'multer';
import type { Logger } from 'pino';
import { AppError, type ErrorCode } from '../core/errors.ts';

/** The only map from a code to an HTTP status. */
export const STATUS_OF: Readonly<Record<ErrorCode, number>> = {
  invalid: 400,
  checksum_mismatch: 400,
  unauthorized: 401,
  forbidden: 403,
  not_found: 404,
  method_not_allowed: 405,
  conflict: 409,
  too_large: 413,
  unsupported_media_type: 415,
  range_not_satisfiable: 416,
  archive_refused: 422,
  impossible: 422,
  refused_by_scheduler: 422,
  internal: 500,
  unavailable: 503,
  out_of_space: 507,
};

/** Answers every error as `application/problem+json` (RFC 9457). What is not an AppError is logged whole and shown as "internal error". */
export function problemHandler(log: Logger): ErrorRequestHandler {
  return (thrown, req, res, next) => {
    const error = asAppError(thrown);
    const status = STATUS_OF[error.code];
    const requestId = requestIdOf(req);
    if (status >= 500 && error.code !== 'out_of_space')
      log.error({ err: thrown, requestId, path: req.path }, 'request failed');
    if (res.headersSent) {
      // Half an answer cannot become an error answer: cut it, so that the client sees it is incomplete.
      next(thrown);
      return;
    }
    if (error.code === 'unauthorized') res.setHeader('WWW-Authenticate', 'Bearer realm="jobrunner"');
    if (error.code === 'unavailable') res.setHeader('Retry-After', '2');
    res
      .status(status)
      .type('application/problem+json')
      .send(
        JSON.stringify({
          type: 'about:blank',
          title: STATUS_CODES[status] ?? 'Error',
          status,
          detail: error.message,
          code: error.code,
          request_id: requestId,
          ...(error.fields.length > 0 ? { errors: error.fields } : {}),
        }),
      );
  };
}

export function requestIdOf(req: Request): string {
  return (req as Request & { id?: string }).id ?? '';
}

export const notFound: RequestHandler = (req) => {
  throw new AppError('not_found', `there is no ${req.method} ${req.path.slice(0, 200)}; see /openapi.json`);
};

/** Errors that Express, body-parser and multer throw for a client's fault carry a 4xx status or a code: ours in their words. */
function asAppError(thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown;
  if (thrown instanceof multer.MulterError) return multerError(thrown);
  const { status, type, message } = thrown as { status?: unknown; type?: unknown; message?: unknown };
  if (typeof status === 'number' && status >= 400 && status < 500) {
    const text = typeof message === 'string' ? message.slice(0, 300) : 'bad request';
    if (type === 'entity.parse.failed') return new AppError('invalid', `the body is not valid JSON: ${text}`);
    if (status === 413) return new AppError('too_large', `the body is too large: ${text}`);
    if (status === 415) return new AppError('unsupported_media_type', text);
    if (status === 416) return new AppError('range_not_satisfiable', text);
    if (status === 404) return new AppError('not_found', 'not found');
    return new AppError('invalid', text);
  }
  if (
    thrown instanceof Error &&
    /Multipart: |Unexpected end of (form|file)|Malformed (part header|urlencoded)|request aborted/i.test(thrown.message)
  ) {
    return new AppError('invalid', `the multipart body is broken: ${thrown.message}`);
  }
  return new AppError('internal', 'internal error', { cause: thrown });
}

function multerError(error: multer.MulterError): AppError {
  const field = error.field === undefined ? undefined : error.field.slice(0, 100);
  const fields = field === undefined ? [] : [{ field, message: error.message }];
  if (error.code === 'LIMIT_UNEXPECTED_FILE') {
    return new AppError('invalid', `unexpected file part "${field ?? ''}"`, { fields });
  }
  if (/^LIMIT_/.test(error.code))
    return new AppError('too_large', `${error.message}${field ? ` (field "${field}")` : ''}`, { fields });
  return new AppError('invalid', error.message, { fields });
}
