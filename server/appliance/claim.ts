import { existsSync, linkSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { pathsIn } from '../storage/paths.ts';
import { runPaths } from './facts.ts';
import { StartError } from './fault.ts';
import {
  allProcesses,
  end,
  folderIdentity,
  isAlive,
  type ProcessId,
  readPidFile,
  readProcess,
  signal,
  waitForEnd,
  workingFolder,
} from './processes.ts';

/**
 * One appliance for one JR_ROOT. The claim names the entrypoint, which becomes the supervisor or outlives it.
 * link(2) makes it: of two that start at once, one gets it.
 */
export async function claim(root: string, entrypointPid: number): Promise<void> {
  mkdirSync(pathsIn(root).run, { recursive: true });
  const { claim: file, services } = runPaths(root);
  const busy = () => new StartError(`an appliance is already running on ${root}: stop it first, or set JR_ROOT`);
  // Another container with the same volume has other pids, but the supervisor's own lock is on the file itself.
  const lock = join(services, '.s6-svscan', 'lock');
  if (existsSync(lock)) {
    const { exitCode } = await execa('s6-setlock', ['-n', lock, 'true'], { reject: false, timeout: 10_000 });
    if (exitCode !== 0) throw busy();
  }
  const us = readProcess(entrypointPid);
  const mine = `${file}.${process.pid}`;
  writeFileSync(mine, `${entrypointPid} ${us?.startTicks ?? 0}\n`, { mode: 0o644 });
  try {
    for (let attempt = 0; attempt < 3; attempt++) {
      try {
        linkSync(mine, file);
        return;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      }
      const holder = readPidFile(file);
      if (holder !== null && isAlive(holder)) throw busy();
      // Stale. Two of us may think so: whoever finds that it moved away a living one's claim puts it back.
      const aside = `${mine}.stale`;
      try {
        renameSync(file, aside);
      } catch {
        continue;
      }
      const moved = readPidFile(aside);
      if (moved !== null && isAlive(moved)) {
        renameSync(aside, file);
        throw busy();
      }
      rmSync(aside, { force: true });
    }
    throw busy();
  } finally {
    rmSync(mine, { force: true });
  }
}

/**
 * Ends what an earlier life on this JR_ROOT left behind when its supervisor was killed: first the supervisors (they would start the
 * daemons again), then the daemons. slurmstepd and jobs stay: slurmd finds them again. A pid is ours only with the start time we noted.
 */
export async function endLeftovers(root: string): Promise<void> {
  const { services, state } = runPaths(root);
  const folders = foldersOf(services);
  const supervisors = allProcesses().filter(
    ({ pid, comm }) => /^s6-/.test(comm) && folders.has(workingFolder(pid) ?? ''),
  );
  for (const each of supervisors) signal(each, 'SIGKILL');
  await waitForEnd(supervisors, 2000);
  const daemons = filesIn(state)
    .filter((name) => name.endsWith('.pid'))
    .map((name) => readPidFile(join(state, name)))
    .filter((each): each is ProcessId => each !== null && isAlive(each));
  await end(daemons, 3000);
  if (supervisors.length + daemons.length > 0) {
    process.stderr.write(
      `jobrunner: ended ${supervisors.length + daemons.length} processes that an earlier start on ${root} left behind\n`,
    );
  }
  for (const folder of [services, state]) rmSync(folder, { recursive: true, force: true });
}

/** The folders that s6's programs work in: the scan folder, the services, and their loggers. */
function foldersOf(services: string): ReadonlySet<string> {
  const inner = filesIn(services).flatMap((name) => [join(services, name), join(services, name, 'log')]);
  return new Set([services, ...inner].map(folderIdentity).filter((each) => each !== null));
}

function filesIn(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : [];
}
