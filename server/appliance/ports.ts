import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { z } from 'zod';
import { pathsIn } from '../storage/paths.ts';
import { StartError } from './fault.ts';

export interface SlurmPorts {
  readonly slurmctld: number;
  readonly slurmd: number;
}

const keptPorts = z.object({ slurmctld: z.int(), slurmd: z.int() });

/** Below the range from which kernels give ports to outgoing connections, so that nobody gets ours by chance while we are down. */
const FIRST = 20_000;
const LAST = 32_000;

/** Slurm's two ports: those of the last start while they are free, else new ones; kept in JR_ROOT. */
export async function pickPorts(root: string): Promise<SlurmPorts> {
  const file = join(pathsIn(root).slurm, 'ports.json');
  const last = readKept(file);
  if (last !== null && (await isFree(last.slurmctld)) && (await isFree(last.slurmd))) return last;
  const slurmctld = await freePort();
  const slurmd = await freePort(slurmctld);
  writeFileSync(file, `${JSON.stringify({ slurmctld, slurmd })}\n`);
  return { slurmctld, slurmd };
}

/** Says so at once, in words, when the API's own port is taken. */
export async function ensureListenable(host: string, port: number): Promise<void> {
  const code = await tryListen(port, host);
  if (code === null) return;
  if (code === 'EADDRINUSE')
    throw new StartError(`PORT ${port} is in use on ${host}: stop what uses it, or set PORT to a free one`);
  if (code === 'EACCES') throw new StartError(`PORT ${port} may not be opened here: set PORT to one above 1023`);
  throw new StartError(
    `JR_HOST ${host} is no address of this machine (${code}): give one of its own, 127.0.0.1 or 0.0.0.0`,
  );
}

function readKept(file: string): SlurmPorts | null {
  try {
    return keptPorts.parse(JSON.parse(readFileSync(file, 'utf8')));
  } catch {
    return null;
  }
}

async function freePort(except?: number): Promise<number> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const port = FIRST + Math.floor(Math.random() * (LAST - FIRST));
    if (port !== except && (await isFree(port))) return port;
  }
  throw new StartError(`no free port between ${FIRST} and ${LAST} for Slurm's daemons`);
}

async function isFree(port: number): Promise<boolean> {
  return (await tryListen(port, '0.0.0.0')) === null;
}

/** Null when it can be listened on, else the error's code. */
function tryListen(port: number, host: string): Promise<string | null> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'unknown'));
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(null)));
  });
}
