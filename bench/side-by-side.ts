import { randomFillSync } from 'node:crypto';
import { closeSync, openSync, writeSync } from 'node:fs';

/** Does one thing, timed; what it returns cleans up, untimed. */
export type Contender = () => Promise<() => unknown>;

/** Runs the contenders in turn, so that a busy moment of the machine hits all of them; the best time of each, in seconds. */
export async function interleaved(
  rounds: number,
  contenders: Readonly<Record<string, Contender>>,
): Promise<Readonly<Record<string, number>>> {
  const best: Record<string, number> = {};
  for (let round = 0; round < rounds; round++) {
    for (const [name, act] of Object.entries(contenders)) {
      const start = performance.now();
      const clean = await act();
      const seconds = (performance.now() - start) / 1000;
      best[name] = Math.min(best[name] ?? Number.POSITIVE_INFINITY, seconds);
      await clean();
    }
  }
  return best;
}

/** A file that no compression makes smaller. */
export function randomFile(path: string, bytes: number): void {
  const chunk = Buffer.alloc(16 * 1024 * 1024);
  const fd = openSync(path, 'wx');
  for (let done = 0; done < bytes; done += chunk.length)
    writeSync(fd, randomFillSync(chunk), 0, Math.min(chunk.length, bytes - done));
  closeSync(fd);
}
