import type { JobId } from '../core/job.ts';

const FIRST_MS = 1000;
const LONGEST_MS = 30_000;

/** Jobs that could not be handed over: each waits longer each time, by itself, so that none keeps the others waiting. */
export interface Retries {
  add(id: JobId, reason: string): void;
  mustWait(id: JobId): boolean;
  reason(id: JobId): string | null;
  forget(id: JobId): void;
}

export function createRetries(): Retries {
  const known = new Map<JobId, { readonly tries: number; readonly notBefore: number; readonly reason: string }>();
  return {
    add(id, reason) {
      const tries = (known.get(id)?.tries ?? 0) + 1;
      const waitMs = Math.min(FIRST_MS * 2 ** (tries - 1), LONGEST_MS);
      known.set(id, { tries, notBefore: performance.now() + waitMs, reason });
    },
    mustWait: (id) => (known.get(id)?.notBefore ?? 0) > performance.now(),
    reason: (id) => known.get(id)?.reason ?? null,
    forget: (id) => void known.delete(id),
  };
}
