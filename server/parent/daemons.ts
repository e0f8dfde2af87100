import { DAEMONS, runPaths } from '../appliance/facts.ts';
import { isAlive, readPidFile } from '../appliance/processes.ts';

/** Which daemons live and have told that they are ready: a few small reads, no process. */
export function daemonStates(root: string): Record<string, boolean> {
  const run = runPaths(root);
  return Object.fromEntries(
    DAEMONS.map((name) => {
      const noted = readPidFile(run.pidFile(name));
      const ready = readPidFile(run.readyFile(name));
      const sameLife = noted !== null && ready?.pid === noted.pid && ready.startTicks === noted.startTicks;
      return [name, sameLife && isAlive(noted)];
    }),
  );
}
