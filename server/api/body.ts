import express, { type RequestHandler } from 'express';
import multer from 'multer';
import { AppError } from '../core/errors.ts';

/** Bounds for bodies that are read into memory. Files never are. */
export const BODY_LIMITS = { bytes: 1_048_576, fields: 100, fieldNameBytes: 200 } as const;

const multipart = multer({
  limits: {
    fields: BODY_LIMITS.fields,
    fieldSize: BODY_LIMITS.bytes,
    fieldNameSize: BODY_LIMITS.fieldNameBytes,
    parts: BODY_LIMITS.fields,
  },
}).none();
const urlencoded = express.urlencoded({
  extended: false,
  limit: BODY_LIMITS.bytes,
  parameterLimit: BODY_LIMITS.fields,
});
const json = express.json({ limit: BODY_LIMITS.bytes, strict: true });

/** Reads a form, an urlencoded or a JSON body into `req.body`; the three mean the same. A POST without a body is an empty one. */
export const formBody: RequestHandler = (req, res, next) => {
  const done = (error?: unknown) => {
    if (error !== undefined) return next(error);
    const body: unknown = req.body;
    if (body !== undefined && (typeof body !== 'object' || body === null || Array.isArray(body))) {
      return next(new AppError('invalid', 'the body must be an object with the fields of this call'));
    }
    // multer and querystring answer with objects without a prototype, and repeated fields as arrays.
    req.body = { ...(body as object | undefined) };
    next();
  };
  if (req.is('multipart/form-data')) return multipart(req, res, done);
  if (req.is('application/x-www-form-urlencoded')) return urlencoded(req, res, done);
  if (req.is('application/json')) return json(req, res, done);
  const length = req.headers['content-length'];
  if ((length === undefined || length === '0') && req.headers['transfer-encoding'] === undefined) return done();
  next(
    new AppError(
      'unsupported_media_type',
      'the body must be multipart/form-data, application/x-www-form-urlencoded or application/json',
    ),
  );
};
