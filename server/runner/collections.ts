import { messageOf } from '../core/errors.ts';
import type { JobId } from '../core/job.ts';

const AT_ONCE = 2;
const TRIES = 6;
const FIRST_WAIT_MS = 500;

export interface Collections {
  add(id: JobId): void;
  stop(): void;
}

export interface CollectionsOptions {
  /** Repeatable. */
  collect(id: JobId): Promise<void>;
  /** `note` says why the outputs could not be indexed, after the last try; null when they are. Must not throw. */
  onDone(id: JobId, note: string | null): void;
}

/** Indexes the outputs of ended jobs, a few at a time, each tried a bounded number of times with growing waits. */
export function createCollections({ collect, onDone }: CollectionsOptions): Collections {
  const waiting: JobId[] = [];
  const held = new Set<JobId>();
  const tries = new Map<JobId, number>();
  const timers = new Set<NodeJS.Timeout>();
  let active = 0;
  let stopped = false;

  async function run(id: JobId): Promise<void> {
    try {
      await collect(id);
      finish(id, null);
    } catch (error) {
      const tried = (tries.get(id) ?? 0) + 1;
      tries.set(id, tried);
      if (tried >= TRIES) finish(id, `its outputs could not be indexed: ${messageOf(error)}`);
      else later(id, FIRST_WAIT_MS * 2 ** (tried - 1));
    }
  }

  function finish(id: JobId, note: string | null): void {
    tries.delete(id);
    held.delete(id);
    if (!stopped) onDone(id, note);
  }

  function later(id: JobId, waitMs: number): void {
    const timer = setTimeout(() => {
      timers.delete(timer);
      waiting.push(id);
      pump();
    }, waitMs);
    timers.add(timer);
  }

  function pump(): void {
    while (!stopped && active < AT_ONCE) {
      const id = waiting.shift();
      if (id === undefined) return;
      active++;
      run(id).finally(() => {
        active--;
        pump();
      });
    }
  }

  return {
    add(id) {
      if (held.has(id)) return;
      held.add(id);
      waiting.push(id);
      pump();
    },
    stop() {
      stopped = true;
      for (const timer of timers) clearTimeout(timer);
    },
  };
}
