import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { nodeFacts } from '../core/node.ts';
import { pathsIn } from '../storage/paths.ts';

const user = z.object({ uid: z.int(), gid: z.int() });

/** What prepare found out and decided, for the root parent and for stop: `run/appliance.json`, root's, without secrets. */
const applianceFacts = z.object({
  root: z.string(),
  /** Folder of the bundled programs, readable by all service users. */
  app: z.string(),
  nodeBinary: z.string(),
  /** Where jobs find their commands. */
  jobPath: z.string(),
  version: z.string(),
  generation: z.string(),
  host: z.string(),
  port: z.int(),
  slurmdPort: z.int(),
  tokenIsNew: z.boolean(),
  api: user,
  submit: user.extend({ name: z.string() }),
  node: nodeFacts,
});
export type ApplianceFacts = z.output<typeof applianceFacts>;

export function readFacts(root: string): ApplianceFacts {
  return applianceFacts.parse(JSON.parse(readFileSync(factsFile(root), 'utf8')));
}

export function factsFile(root: string): string {
  return join(pathsIn(root).run, 'appliance.json');
}

/** Where the parts of the running appliance meet. */
export function runPaths(root: string) {
  const run = pathsIn(root).run;
  return {
    services: join(run, 'service'),
    /** `<daemon>.pid`, `<daemon>.ready` (the pid again), `<daemon>.deaths`; written by the services' own scripts. */
    state: join(run, 'state'),
    claim: join(run, 'appliance.pid'),
    exitCode: join(run, 'exit-code'),
    stopping: join(run, 'state', 'stopping'),
    undrain: join(run, 'state', 'undrain'),
    announced: join(run, 'state', 'announced'),
    munge: join(run, 'munge'),
    mungeSocket: join(run, 'munge', 'munge.socket.2'),
    mungeKey: join(root, 'slurm', 'munge', 'munge.key'),
    pidFile: (daemon: string) => join(run, 'state', `${daemon}.pid`),
    readyFile: (daemon: string) => join(run, 'state', `${daemon}.ready`),
  } as const;
}

/** Exit code of the stop program when another one is at work. */
export const ALREADY_STOPPING = 3;

/** In the order of their start. */
export const DAEMONS = ['munged', 'slurmctld', 'slurmd'] as const;
export type Daemon = (typeof DAEMONS)[number];

/** Slurm keeps a host's name in 64 bytes, the last of them NUL; Linux allows 64 characters (sethostname(2)). */
const SLURM_HOST_NAME_MAX = 63;

/** The name by which Slurm's daemons know this host: its first label, cut where Slurm would give up. */
export function slurmHostName(hostName: string): string {
  return (hostName.split('.')[0] || 'localhost').slice(0, SLURM_HOST_NAME_MAX);
}

/** What Slurm's daemons (not its clients: jobs inherit from those) need beside the usual, where the host's name is too long for them. */
export function daemonEnvironment(hostName: string): Record<string, string> {
  const label = hostName.split('.')[0] ?? '';
  if (label.length <= SLURM_HOST_NAME_MAX) return {};
  return { LD_PRELOAD: 'libnss_wrapper.so', NSS_WRAPPER_HOSTNAME: slurmHostName(hostName) };
}

/**
 * The only environment that Slurm's programs get from us. Slurm asks the name server for the name of 0.0.0.0 when it listens (24.11's conmgr);
 * where none answers, a container without a way out, that would take 10 s twice at every start (resolv.conf(5): RES_OPTIONS).
 */
export function slurmEnvironment(root: string): Record<string, string> {
  return {
    PATH: SYSTEM_PATH,
    SLURM_CONF: pathsIn(root).slurmConf,
    LC_ALL: 'C.UTF-8',
    RES_OPTIONS: 'timeout:1 attempts:1',
  };
}

export const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
