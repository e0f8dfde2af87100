import { z } from 'zod';
import type { Template } from '../../core/template.ts';
import { formatTimeLimit } from '../../core/time-limit.ts';

export const templatePath = z.strictObject({
  key: z.string().regex(/^[a-z0-9_-]{1,64}$/, 'must be 1 to 64 of a-z, 0-9, "_" and "-"'),
});

export const template = z.object({
  key: z.string(),
  title: z.string(),
  description: z.string(),
  builtin: z.boolean(),
  params: z.record(z.string(), z.unknown()).describe('JSON Schema (2020-12) of params_json'),
  resources: z
    .object({
      gpus: z.int().optional(),
      cpus: z.int().optional(),
      mem_gb: z.number().optional(),
      time_limit: z.string().optional(),
    })
    .describe('what a job gets that does not say'),
});

export const templateList = z.object({
  templates: z.array(template),
  broken: z.array(z.object({ key: z.string(), fault: z.string() })).describe('folders that cannot be used, and why'),
});

export function showTemplate(each: Template, builtin: ReadonlySet<string>): z.input<typeof template> {
  const { gpus, cpus, memoryMiB, timeLimitSeconds } = each.resources;
  return {
    key: each.key,
    title: each.title,
    description: each.description,
    builtin: builtin.has(each.key),
    params: each.paramsSchema,
    resources: {
      ...(gpus === undefined ? {} : { gpus }),
      ...(cpus === undefined ? {} : { cpus }),
      ...(memoryMiB === undefined ? {} : { mem_gb: memoryMiB / 1024 }),
      ...(timeLimitSeconds === undefined ? {} : { time_limit: formatTimeLimit(timeLimitSeconds) }),
    },
  };
}
