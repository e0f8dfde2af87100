import { Ajv2020, type ErrorObject, type ValidateFunction } from 'ajv/dist/2020.js';
import { parse } from 'yaml';
import { z } from 'zod';
import type { FieldError } from '../core/errors.ts';
import type { Resources } from '../core/job.ts';
import type { JsonObject } from '../core/json.ts';
import type { Template } from '../core/template.ts';
import { parseTimeLimit } from '../core/time-limit.ts';

/** What `template.yaml` may say. Resources are named as the fields of `POST /jobs`. */
const declaration = z.strictObject({
  title: z.string().min(1).max(200),
  description: z.string().max(10_000).default(''),
  params: z.record(z.string(), z.json()).default({ type: 'object' }),
  resources: z
    .strictObject({
      gpus: z.int().min(0).max(256).optional(),
      cpus: z.int().min(1).max(65_533).optional(),
      mem_gb: z.number().positive().max(1_000_000).optional(),
      time_limit: z.string().optional(),
    })
    .default({}),
});

export type Declared = Pick<Template, 'title' | 'description' | 'paramsSchema' | 'resources' | 'validate'>;

/** Reads the text of a `template.yaml`. Throws Error with a sentence about its fault. */
export function readDeclaration(text: string): Declared {
  const { title, description, params, resources } = checked(text);
  const validator = compiled(params as JsonObject);
  return {
    title,
    description,
    paramsSchema: params as JsonObject,
    resources: resourcesOf(resources),
    validate: (value) => (validator(value) ? [] : (validator.errors ?? []).slice(0, 20).map(fieldError)),
  };
}

function checked(text: string): z.output<typeof declaration> {
  let value: unknown;
  try {
    // An alias that repeats itself (the "billion laughs") is stopped by the parser's own bound.
    value = parse(text, { maxAliasCount: 100 });
  } catch (error) {
    throw new Error(`template.yaml is not valid YAML: ${(error as Error).message.split('\n', 1)[0]}`);
  }
  const parsed = declaration.safeParse(value);
  if (parsed.success) return parsed.data;
  const faults = parsed.error.issues.slice(0, 5).map(({ path, message }) => `${path.join('.') || 'it'}: ${message}`);
  throw new Error(`template.yaml: ${faults.join('; ')}`);
}

function compiled(schema: JsonObject): ValidateFunction {
  if (schema.type !== 'object') throw new Error('template.yaml: params must be a JSON Schema with "type: object"');
  // Strict about unknown keywords, so that a mistyped `minumum` is told. `format` is a remark in JSON Schema 2020-12, no check.
  const ajv = new Ajv2020({
    strict: true,
    strictTypes: false,
    strictTuples: false,
    strictRequired: false,
    validateFormats: false,
    allErrors: true,
    verbose: true, // errors carry their schema, whose description helps whoever reads them
    logger: false,
  });
  try {
    return ajv.compile(schema);
  } catch (error) {
    throw new Error(`template.yaml: params is no JSON Schema (2020-12) that can be used: ${(error as Error).message}`);
  }
}

function resourcesOf(declared: z.output<typeof declaration>['resources']): Partial<Resources> {
  const seconds = declared.time_limit === undefined ? undefined : parseTimeLimit(declared.time_limit);
  if (seconds === null)
    throw new Error('template.yaml: resources.time_limit must be a time as Slurm writes it, "00:10:00" say');
  return {
    ...(declared.gpus === undefined ? {} : { gpus: declared.gpus }),
    ...(declared.cpus === undefined ? {} : { cpus: declared.cpus }),
    ...(declared.mem_gb === undefined ? {} : { memoryMiB: Math.max(1, Math.round(declared.mem_gb * 1024)) }),
    ...(seconds === undefined ? {} : { timeLimitSeconds: seconds }),
  };
}

function fieldError({ instancePath, keyword, params, message, parentSchema }: ErrorObject): FieldError {
  const parts = instancePath
    .split('/')
    .slice(1)
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
  const at = (...more: readonly string[]) => ['params_json', ...parts, ...more].join('.').slice(0, 200);
  if (keyword === 'required') return { field: at(String(params.missingProperty)), message: 'must be given' };
  if (keyword === 'additionalProperties' || keyword === 'unevaluatedProperties') {
    const name = String(params.additionalProperty ?? params.unevaluatedProperty);
    return { field: at(name), message: 'is not a parameter of this template' };
  }
  if (keyword === 'enum')
    return { field: at(), message: `must be one of ${JSON.stringify(params.allowedValues).slice(0, 300)}` };
  if (keyword === 'const')
    return { field: at(), message: `must be ${JSON.stringify(params.allowedValue).slice(0, 300)}` };
  const { description } = (parentSchema ?? {}) as { description?: unknown };
  const help = typeof description === 'string' ? ` (${description.slice(0, 200)})` : '';
  return { field: at(), message: `${message ?? 'is not allowed'}${help}` };
}
