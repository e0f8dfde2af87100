import { randomUUID } from 'node:crypto';
import express, { type Express, type RequestHandler } from 'express';
import helmet from 'helmet';
import type { Logger } from 'pino';
import { requireToken } from './auth.ts';
import { openApiOf } from './openapi.ts';
import { notFound, problemHandler } from './problem.ts';
import { type AnyRoute, routerOf } from './route.ts';

export interface AppOptions {
  readonly token: string;
  readonly version: string;
  readonly log: Logger;
  /** All calls, of all dialects. Those marked `open` need no token. */
  readonly routes: readonly AnyRoute[];
}

/** The Express application: who may come in, what they get when it is not there, and how errors look. No call is described here. */
export function createApp({ token, version, log, routes }: AppOptions): Express {
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.set('query parser', 'simple');
  app.use(requestId);
  app.use(securityHeaders);
  app.use(routerOf(routes.filter((each) => each.open)));
  app.use(requireToken(token));
  const document = JSON.stringify(openApiOf(routes, version));
  app.get('/openapi.json', (_req, res) => void res.type('application/json').send(document));
  app.use(routerOf(routes.filter((each) => !each.open)));
  app.use(notFound);
  app.use(problemHandler(log));
  return app;
}

/**
 * Answers are data: nothing in them may run, be framed or be guessed to be something else. The headers that only concern pages with
 * scripts, old browsers or TLS (which is not ours to end) would be dead weight on every answer.
 */
const securityHeaders = helmet({
  contentSecurityPolicy: {
    useDefaults: false,
    directives: { defaultSrc: ["'none'"], frameAncestors: ["'none'"], sandbox: [] },
  },
  crossOriginOpenerPolicy: false,
  originAgentCluster: false,
  strictTransportSecurity: false,
  xDnsPrefetchControl: false,
  xDownloadOptions: false,
  xPermittedCrossDomainPolicies: false,
  xXssProtection: false,
});

const requestId: RequestHandler = (req, res, next) => {
  const id = randomUUID();
  (req as typeof req & { id: string }).id = id;
  res.setHeader('X-Request-Id', id);
  next();
};
