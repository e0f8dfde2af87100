import { z } from 'zod';
import { faultOfId, parseRelPath, type Skipped } from '../core/output.ts';

/** More than this is no manifest: in bytes, and in outputs. */
export const MANIFEST_BYTES = 4_194_304;
const MANIFEST_OUTPUTS = 100_000;

export interface Manifest {
  /** Null when the job named none, or none that can be one. */
  readonly experimentId: string | null;
  readonly outputs: readonly { readonly id: string; readonly path: string }[];
  readonly skipped: readonly Skipped[];
}

const shape = z.object({ experimentId: z.unknown().optional(), outputs: z.array(z.unknown()) });
const entry = z.object({ id: z.string(), path: z.string() });

/**
 * Reads `manifest.json`. An entry that cannot be an output is left out and reported, the others stay; of two entries with one id the
 * first holds it. What is no manifest at all is a `fault`.
 */
export function parseManifest(text: string): Manifest | { readonly fault: string } {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return { fault: `is not valid JSON (${(error as Error).message.slice(0, 200)})` };
  }
  const parsed = shape.safeParse(value);
  if (!parsed.success) return { fault: 'must be {"experimentId": "…", "outputs": [{"id": "…", "path": "…"}]}' };

  if (parsed.data.outputs.length > MANIFEST_OUTPUTS) return { fault: `has more than ${MANIFEST_OUTPUTS} outputs` };

  const skipped: Skipped[] = [];
  const pathOf = new Map<string, string>();
  for (const [index, item] of parsed.data.outputs.entries()) {
    const result = checkEntry(item);
    const where = `manifest.json outputs[${index}]`;
    if ('fault' in result) skipped.push({ path: where, reason: result.fault });
    else if (pathOf.has(result.id)) skipped.push({ path: where, reason: 'id stands twice: the first one holds it' });
    else pathOf.set(result.id, result.path);
  }
  const { experimentId, fault } = checkExperiment(parsed.data.experimentId);
  if (fault !== null) skipped.unshift({ path: 'manifest.json experimentId', reason: fault });
  return { experimentId, outputs: [...pathOf].map(([id, path]) => ({ id, path })), skipped };
}

function checkEntry(item: unknown): { readonly id: string; readonly path: string } | { readonly fault: string } {
  const parsed = entry.safeParse(item);
  if (!parsed.success) return { fault: 'must be {"id": "…", "path": "…"}' };
  const fault = faultOfId(parsed.data.id);
  if (fault !== null) return { fault: `id ${fault}` };
  const path = parseRelPath(parsed.data.path);
  return 'fault' in path ? { fault: `path ${path.fault}` } : { id: parsed.data.id, path: path.path };
}

function checkExperiment(value: unknown): { readonly experimentId: string | null; readonly fault: string | null } {
  if (value === undefined || value === null || value === '') return { experimentId: null, fault: null };
  if (typeof value !== 'string') return { experimentId: null, fault: 'must be text' };
  const fault = faultOfId(value);
  return fault === null ? { experimentId: value, fault: null } : { experimentId: null, fault };
}
