import { z } from 'zod';
import type { Answer, AnyRoute } from './route.ts';

/** The OpenAPI 3.1 document, from the same schemas that validate the requests. */
export function openApiOf(routes: readonly AnyRoute[], version: string): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const each of routes) {
    paths[each.path] = { ...paths[each.path], [each.method]: operation(each) };
  }
  return {
    openapi: '3.1.0',
    info: { title: 'JobRunner', version, description: 'A GPU box as a job queue that one drives with curl.' },
    paths,
    components: {
      securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } },
      schemas: { Problem: schemaOf(problem, 'output') },
    },
    security: [{ bearer: [] }],
  };
}

const problem = z.object({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  code: z.string(),
  request_id: z.string(),
  errors: z.array(z.object({ field: z.string(), message: z.string() })).optional(),
});

function operation(each: AnyRoute): object {
  const body = each.body === undefined ? each.bodyDescription : formContent(schemaOf(each.body, 'input'));
  return {
    summary: each.summary,
    ...(each.open ? { security: [] } : {}),
    parameters: [...parametersOf(each.params, 'path'), ...parametersOf(each.query, 'query')],
    ...(body === undefined ? {} : { requestBody: body }),
    responses: {
      ...Object.fromEntries(each.answers.map((answer) => [String(answer.status), response(answer)])),
      default: {
        description: 'what went wrong',
        content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
      },
    },
  };
}

function formContent(schema: object): object {
  return {
    content: {
      'multipart/form-data': { schema },
      'application/x-www-form-urlencoded': { schema },
      'application/json': { schema },
    },
  };
}

function response({ description, schema, contentType }: Answer): object {
  if (schema === undefined && contentType === undefined) return { description };
  const type = contentType ?? 'application/json';
  return { description, content: { [type]: schema === undefined ? {} : { schema: schemaOf(schema, 'output') } } };
}

function parametersOf(schema: z.ZodType | undefined, place: 'path' | 'query'): object[] {
  if (!(schema instanceof z.ZodObject)) return [];
  const json = schemaOf(schema, 'input') as { properties?: Record<string, object>; required?: string[] };
  return Object.entries(json.properties ?? {}).map(([name, property]) => ({
    name,
    in: place,
    required: place === 'path' || (json.required ?? []).includes(name),
    schema: property,
  }));
}

function schemaOf(schema: z.ZodType, io: 'input' | 'output'): object {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: 'any' });
  return rest;
}
