import { type Request, type RequestHandler, type Response, Router } from 'express';
import { z } from 'zod';
import { AppError } from '../core/errors.ts';
import { formBody } from './body.ts';

/** A documented answer, for OpenAPI. `schema` is absent where the body is no JSON. */
export interface Answer {
  readonly status: number;
  readonly description: string;
  readonly schema?: z.ZodType;
  readonly contentType?: string;
}

/**
 * One call of the API. The schemas validate the request, type the handler and make the OpenAPI document: there is no second place.
 * `path` is OpenAPI's (`/jobs/{id}`). `body`: fields of a form, urlencoded or JSON body. A route that reads its body itself (an upload)
 * leaves `body` out and describes it in `bodyDescription`.
 */
export interface Route<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType> {
  readonly method: 'get' | 'post' | 'put' | 'patch' | 'delete';
  readonly path: string;
  readonly summary: string;
  readonly params?: P;
  readonly query?: Q;
  readonly body?: B;
  readonly bodyDescription?: object;
  readonly answers: readonly Answer[];
  readonly open?: true;
  readonly handler: (input: Input<P, Q, B>) => Promise<void> | void;
}

export interface Input<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType> {
  readonly params: z.output<P>;
  readonly query: z.output<Q>;
  readonly body: z.output<B>;
  readonly req: Request;
  readonly res: Response;
}

export type AnyRoute = Route<z.ZodType, z.ZodType, z.ZodType>;

/** Keeps a route's own types for its handler while routes of all kinds stand in one list. */
export function route<
  P extends z.ZodType = z.ZodObject,
  Q extends z.ZodType = z.ZodObject,
  B extends z.ZodType = z.ZodObject,
>(definition: Route<P, Q, B>): AnyRoute {
  return definition as unknown as AnyRoute;
}

/** Routes by their first path segment, so that a request is not held against every path that there is. */
export function routerOf(routes: readonly AnyRoute[]): Router {
  const router = Router({ caseSensitive: true });
  const sections = new Map<string, Router>();
  for (const each of routes) {
    const [, section = '', rest = ''] = /^(\/[^/]*)(.*)$/.exec(each.path) ?? [];
    let inner = sections.get(section);
    if (inner === undefined) {
      inner = Router({ caseSensitive: true });
      sections.set(section, inner);
      router.use(section, inner);
    }
    inner[each.method](rest.replace(/\{(\w+)\}/g, ':$1') || '/', ...handlersOf(each));
  }
  return router;
}

function handlersOf(each: AnyRoute): RequestHandler[] {
  const handler: RequestHandler = async (req, res) => {
    await each.handler({
      params: check(each.params ?? empty, req.params, 'path'),
      query: check(each.query ?? empty, { ...req.query }, 'query'),
      body: each.body === undefined ? {} : check(each.body, req.body ?? {}, 'body'),
      req,
      res,
    });
  };
  return each.body === undefined ? [handler] : [formBody, handler];
}

/** Unknown fields are refused by name: a mistyped `gpu=4` must not silently run on one GPU. */
const empty = z.strictObject({});

function check(schema: z.ZodType, value: unknown, where: string): unknown {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const fields = result.error.issues.slice(0, 20).flatMap((issue) => {
    if (issue.code === 'unrecognized_keys') {
      return issue.keys
        .slice(0, 20)
        .map((key) => ({ field: key.slice(0, 100), message: `is not a field of this call${allowed(schema)}` }));
    }
    return [{ field: issue.path.map(String).join('.').slice(0, 100) || where, message: issue.message }];
  });
  throw new AppError('invalid', fields.map(({ field, message }) => `${field}: ${message}`).join('; '), { fields });
}

function allowed(schema: z.ZodType): string {
  const names = schema instanceof z.ZodObject ? Object.keys(schema.shape) : [];
  return names.length > 0 ? ` (allowed: ${names.join(', ')})` : '';
}
