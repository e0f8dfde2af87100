import type { Logger } from 'pino';
import type { JobId } from '../core/job.ts';

const POLL_MS = 1000;
const IDLE_POLL_MS = 10_000;
/** A poll that takes long (very many jobs, a busy controller) is made more rarely: at most this share of the time. */
const SHARE = 5;
/** So much later a poll that was asked for comes, so that many wishes make one. */
const HURRY_MS = 20;

export interface PacerOptions {
  readonly poll: () => Promise<void>;
  readonly glance: (ids: readonly JobId[]) => void;
  readonly busy: () => boolean;
  readonly log: Logger;
}

export interface Pacer {
  start(): void;
  /** These jobs left news: look at once, without a poll. */
  news(ids: readonly JobId[]): void;
  /** There is something to poll for: do not idle. */
  expect(): void;
  /** Poll now. */
  hurry(): void;
  stop(): Promise<void>;
}

/** When to look: one poll at a time, once a second while there is anything to look for; news at once. */
export function createPacer({ poll, glance, busy, log }: PacerOptions): Pacer {
  let timer: NodeJS.Timeout | null = null;
  let dueAt = 0;
  let polling: Promise<void> | null = null;
  let again = false;
  let stopped = true;
  let gathered: Set<JobId> | null = null;

  function schedule(waitMs: number): void {
    if (stopped || polling !== null) return;
    const at = performance.now() + waitMs;
    if (timer !== null && dueAt <= at) return;
    if (timer !== null) clearTimeout(timer);
    dueAt = at;
    timer = setTimeout(round, waitMs);
  }

  function round(): void {
    timer = null;
    const began = performance.now();
    again = false;
    polling = poll()
      .catch((error: unknown) => log.error({ err: error }, 'a round of reconciling failed; the next one tries again'))
      .finally(() => {
        polling = null;
        const took = performance.now() - began;
        schedule(again ? HURRY_MS : Math.max(busy() ? POLL_MS : IDLE_POLL_MS, took * SHARE));
      });
  }

  return {
    start() {
      stopped = false;
      schedule(0);
    },
    news(ids) {
      if (stopped) return;
      if (gathered === null) {
        gathered = new Set();
        setImmediate(() => {
          const told = [...(gathered ?? [])];
          gathered = null;
          if (stopped) return;
          try {
            glance(told);
          } catch (error) {
            log.error({ err: error }, 'news could not be looked at; the poll will');
          }
        });
      }
      for (const id of ids) gathered.add(id);
    },
    expect: () => schedule(POLL_MS),
    hurry() {
      if (polling === null) schedule(HURRY_MS);
      else again = true;
    },
    async stop() {
      stopped = true;
      if (timer !== null) clearTimeout(timer);
      timer = null;
      await polling;
    },
  };
}
