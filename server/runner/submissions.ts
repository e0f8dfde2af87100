import type { JobId } from '../core/job.ts';

/** How many jobs are handed over at a time: more would only wait for each other in slurmctld. */
const AT_ONCE = 4;

export interface Submissions {
  /** Jobs of which the scheduler's answer is awaited, or that wait for their turn: nobody else may judge them meanwhile. */
  has(id: JobId): boolean;
  /** Does nothing while paused. */
  add(id: JobId): void;
  /** Nothing new is begun until `resume`; what waits its turn is dropped (its state says `submitting`, so it is found again). */
  pause(): void;
  resume(): void;
  readonly paused: boolean;
  /** Resolves when the one or other way is known, or after `limitMs`. */
  settled(id: JobId, limitMs: number): Promise<void>;
  idle(): Promise<void>;
}

/** A bounded queue. `submit` must not throw. */
export function createSubmissions(submit: (id: JobId) => Promise<void>): Submissions {
  const waiting: JobId[] = [];
  const held = new Set<JobId>();
  const listeners = new Map<JobId, (() => void)[]>();
  let active = 0;
  let paused = false;
  const idlers: (() => void)[] = [];

  function finish(id: JobId): void {
    held.delete(id);
    for (const listener of listeners.get(id) ?? []) listener();
    listeners.delete(id);
    if (held.size === 0) for (const idler of idlers.splice(0)) idler();
  }

  function pump(): void {
    while (!paused && active < AT_ONCE) {
      const id = waiting.shift();
      if (id === undefined) return;
      active++;
      submit(id).finally(() => {
        active--;
        finish(id);
        pump();
      });
    }
  }

  return {
    has: (id) => held.has(id),
    add(id) {
      if (paused || held.has(id)) return;
      held.add(id);
      waiting.push(id);
      pump();
    },
    pause() {
      paused = true;
      for (const id of waiting.splice(0)) finish(id);
    },
    resume() {
      paused = false;
      pump();
    },
    get paused() {
      return paused;
    },
    settled(id, limitMs) {
      if (!held.has(id)) return Promise.resolve();
      return new Promise((resolve) => {
        const timer = setTimeout(resolve, limitMs);
        const done = () => {
          clearTimeout(timer);
          resolve();
        };
        listeners.set(id, [...(listeners.get(id) ?? []), done]);
      });
    },
    idle: () => (held.size === 0 ? Promise.resolve() : new Promise((resolve) => void idlers.push(resolve))),
  };
}
