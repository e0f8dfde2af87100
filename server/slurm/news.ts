import { type FSWatcher, watch } from 'node:fs';
import { basename, dirname } from 'node:path';
import type { Logger } from 'pino';
import { messageOf } from '../core/errors.ts';
import type { JobId } from '../core/job.ts';
import type { Paths } from '../storage/paths.ts';

export interface NewsOptions {
  readonly paths: Paths;
  readonly signal: AbortSignal;
  readonly log: Logger;
  onWitness(ids: readonly JobId[]): void;
  onRecords(): void;
}

/** Events within this time are told together. */
const GATHER_MS = 5;

/**
 * Watches the folders that the jobs' scripts and slurmctld write into. A help for speed only: the poll finds what an event missed,
 * so a watch that cannot be had (no inotify left) is logged and done without.
 */
export async function watchNews({ paths, signal, log, onWitness, onRecords }: NewsOptions): Promise<void> {
  const ids = new Set<JobId>();
  let gathering: NodeJS.Timeout | null = null;
  const tell = () => {
    gathering = null;
    const told = [...ids];
    ids.clear();
    if (told.length > 0) onWitness(told);
  };
  const watchers = [
    watchFolder(paths.witness, log, (name) => {
      const match = /^([1-9]\d{0,14})\.(?:started|ended)$/.exec(name);
      if (match?.[1] === undefined) return;
      ids.add(Number(match[1]));
      gathering ??= setTimeout(tell, GATHER_MS);
    }),
    watchFolder(dirname(paths.jobCompletion), log, (name) => {
      if (name === basename(paths.jobCompletion)) onRecords();
    }),
  ];
  onRecords();
  await new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
  for (const watcher of watchers) watcher?.close();
  if (gathering !== null) clearTimeout(gathering);
}

function watchFolder(folder: string, log: Logger, onName: (name: string) => void): FSWatcher | null {
  try {
    const watcher = watch(folder, (_event, name) => {
      if (name !== null) onName(name);
    });
    watcher.on('error', (error) =>
      log.warn({ reason: messageOf(error) }, 'a folder is no longer watched; the poll goes on'),
    );
    return watcher;
  } catch (error) {
    log.warn({ reason: messageOf(error) }, 'a folder cannot be watched; the poll goes on');
    return null;
  }
}
