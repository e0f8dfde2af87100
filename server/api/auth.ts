import { createHash, timingSafeEqual } from 'node:crypto';
import type { RequestHandler } from 'express';
import { AppError } from '../core/errors.ts';

/** Lets only requests with the bearer token pass. Both sides are hashed first, so that the comparison's time says nothing, not even the length. */
export function requireToken(token: string): RequestHandler {
  const expected = digest(token);
  return (req, _res, next) => {
    const match = /^Bearer +([^\s]+) *$/i.exec(req.headers.authorization ?? '');
    if (match?.[1] === undefined) {
      throw new AppError('unauthorized', 'a token is needed: send the header "Authorization: Bearer <token>"');
    }
    if (!timingSafeEqual(digest(match[1]), expected))
      throw new AppError('unauthorized', 'the token is not the right one');
    next();
  };
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
