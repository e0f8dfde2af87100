import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { SYSTEM_PATH } from '../../appliance/facts.ts';
import { signal } from '../../appliance/processes.ts';
import type { OpsContext } from '../../parent/ops/context.ts';
import { pathsIn } from '../../storage/paths.ts';
import { processesOf } from './appliance.ts';

/**
 * A real Slurm of one's own below a temporary JR_ROOT: munged, slurmctld and slurmd on free ports, nothing outside the folder.
 * Much smaller than the appliance, and ready in about a second. Jobs run as `nobody`.
 */
export interface HouseSlurm {
  readonly context: OpsContext;
  readonly environment: Readonly<Record<string, string>>;
  start(daemon: Daemon): Promise<void>;
  /** `SIGKILL`, and waits until it is gone. */
  kill(daemon: Daemon): Promise<void>;
  wipeState(): void;
  stop(): Promise<void>;
}

export type Daemon = 'munged' | 'slurmctld' | 'slurmd';

export interface HouseSlurmOptions {
  readonly cpus?: number;
  readonly gpus?: number;
}

const submitUser = { uid: 65534, gid: 65534, name: 'nobody' };
/** Stands for the API's group. */
const apiGid = 1;

export async function startSlurm({ cpus = 4, gpus = 0 }: HouseSlurmOptions = {}): Promise<HouseSlurm> {
  const root = mkdtempSync('/tmp/jr-slurm-');
  chmodSync(root, 0o755);
  const paths = pathsIn(root);
  const slurm = ids('slurm');
  makeTree(root, slurm);
  const [controllerPort, nodePort] = [await freePort(), await freePort()];
  writeFileSync(join(root, 'slurm/etc/cgroup.conf'), 'CgroupPlugin=cgroup/v1\n');
  writeFileSync(paths.slurmConf, slurmConf(root, { controllerPort, nodePort, cpus, gpus }));
  if (gpus > 0) {
    writeFileSync(join(root, 'slurm/etc/gres.conf'), `Name=gpu Type=test File=${root}/gpu[0-${gpus - 1}]\n`);
    for (let i = 0; i < gpus; i++) execFileSync('mknod', [join(root, `gpu${i}`), 'c', '1', '3']);
  }
  const context: OpsContext = { paths, submitUser, apiGid, slurmConf: paths.slurmConf, jobPath: SYSTEM_PATH };
  const environment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', SLURM_CONF: paths.slurmConf };
  const running = new Map<Daemon, ChildProcess>();

  const start = async (daemon: Daemon) => {
    if (daemon === 'slurmctld') raiseFirstJobId(paths.slurmConf);
    const child = spawn(`/usr/sbin/${daemon}`, argumentsOf(daemon, root), {
      env: environment,
      detached: true,
      stdio: ['ignore', openSync(join(root, `${daemon}.out`), 'a'), openSync(join(root, `${daemon}.out`), 'a')],
    });
    running.set(daemon, child);
    await until(`${daemon} to be ready`, () => ready(daemon, root, environment));
  };
  const kill = async (daemon: Daemon, signal: NodeJS.Signals = 'SIGKILL') => {
    const child = running.get(daemon);
    running.delete(daemon);
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    await gone;
  };
  for (const daemon of ['munged', 'slurmctld', 'slurmd'] as const) await start(daemon);
  return {
    context,
    environment,
    start,
    kill: (daemon) => kill(daemon),
    wipeState() {
      rmSync(paths.slurmState, { recursive: true, force: true });
      mkdirOf(paths.slurmState, 0o700, slurm);
    },
    async stop() {
      if (running.has('slurmctld') && running.has('slurmd')) await endJobs(environment);
      for (const daemon of ['slurmctld', 'slurmd', 'munged'] as const) await kill(daemon);
      // slurmstepd outlives its daemons, and its job.
      await endAll(root);
      rmSync(root, { recursive: true, force: true });
    },
  };
}

function makeTree(root: string, slurm: Ids): void {
  const munge = ids('munge');
  const paths = pathsIn(root);
  for (const folder of [paths.jobs, paths.logs, paths.slurm, join(root, 'slurm/etc'), paths.slurmSpool, paths.run]) {
    mkdirOf(folder, 0o755, { uid: 0, gid: 0 });
  }
  mkdirOf(paths.results, 0o755, { uid: 0, gid: 0 });
  for (const folder of [paths.witness]) mkdirOf(folder, 0o2770, { uid: submitUser.uid, gid: apiGid });
  mkdirOf(paths.datasets, 0o755, { uid: 0, gid: 0 });
  mkdirOf(paths.templates, 0o755, { uid: 0, gid: 0 });
  mkdirOf(join(root, 'slurm/events'), 0o2750, { uid: slurm.uid, gid: apiGid });
  for (const folder of [paths.slurmState, paths.slurmLogs]) mkdirOf(folder, 0o700, slurm);
  mkdirOf(join(root, 'munge'), 0o755, munge);
  writeFileSync(join(root, 'munge/key'), randomBytes(128), { mode: 0o400 });
  chownSync(join(root, 'munge/key'), munge.uid, munge.gid);
}

interface Ids {
  readonly uid: number;
  readonly gid: number;
}

function ids(user: string): Ids {
  const id = (flag: string) => Number(execFileSync('id', [flag, user], { encoding: 'utf8' }));
  return { uid: id('-u'), gid: id('-g') };
}

function mkdirOf(path: string, mode: number, { uid, gid }: Ids): void {
  mkdirSync(path, { recursive: true });
  chownSync(path, uid, gid);
  chmodSync(path, mode);
}

function argumentsOf(daemon: Daemon, root: string): string[] {
  if (daemon !== 'munged') return ['-D'];
  const munge = join(root, 'munge');
  const { uid, gid } = ids('munge');
  // munged gives up its rights itself only when it starts as its user: setpriv does it.
  void uid;
  void gid;
  return [
    '--foreground',
    '--force',
    `--key-file=${munge}/key`,
    `--socket=${munge}/socket`,
    `--pid-file=${munge}/pid`,
    `--log-file=${munge}/log`,
    `--seed-file=${munge}/seed`,
    '--origin=127.0.0.1',
    '--num-threads=2',
  ];
}

function ready(daemon: Daemon, root: string, env: Readonly<Record<string, string>>): boolean {
  if (daemon === 'munged') return existsSync(join(root, 'munge/socket'));
  if (daemon === 'slurmctld') return /is UP/.test(tell('scontrol', ['ping'], env));
  return /^(idle|mix|alloc|comp)/m.test(tell('sinfo', ['-h', '-o', '%t'], env));
}

function tell(program: string, args: readonly string[], env: Readonly<Record<string, string>>): string {
  try {
    return execFileSync(program, args, { env, encoding: 'utf8', timeout: 5000, stdio: ['ignore', 'pipe', 'ignore'] });
  } catch {
    return '';
  }
}

/** As the appliance does before each start: numbers that a killed slurmctld forgets must not come again. */
function raiseFirstJobId(slurmConf: string): void {
  const conf = readFileSync(slurmConf, 'utf8');
  const first = Number(/^FirstJobId=(\d+)$/m.exec(conf)?.[1] ?? -999) + 1000;
  writeFileSync(slurmConf, `${conf.replace(/^FirstJobId=.*\n/m, '')}FirstJobId=${first}\n`);
}

async function endAll(root: string): Promise<void> {
  await until('all processes of it to end', () => {
    const left = processesOf(root);
    for (const each of left) signal(each, 'SIGKILL');
    return left.length === 0;
  });
}

async function endJobs(env: Readonly<Record<string, string>>): Promise<void> {
  tell('scancel', ['-f', '-s', 'KILL', '-u', submitUser.name], env);
  tell('scancel', ['-u', submitUser.name], env);
  await until('all jobs to end', () => tell('squeue', ['-h', '-o', '%i'], env) === '', 15_000).catch(() => {});
}

export async function until(what: string, condition: () => boolean | Promise<boolean>, limitMs = 20_000) {
  const end = Date.now() + limitMs;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited ${limitMs} ms in vain for ${what}`);
    await delay(25);
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}

interface ConfOptions {
  readonly controllerPort: number;
  readonly nodePort: number;
  readonly cpus: number;
  readonly gpus: number;
}

function slurmConf(root: string, { controllerPort, nodePort, cpus, gpus }: ConfOptions): string {
  const host = hostname().split('.')[0];
  return `ClusterName=house
SlurmctldHost=${host}(127.0.0.1)
SlurmUser=slurm
SlurmctldPort=${controllerPort}
SlurmdPort=${nodePort}
AuthType=auth/munge
AuthInfo=socket=${root}/munge/socket
CredType=cred/munge
StateSaveLocation=${root}/slurm/state
SlurmdSpoolDir=${root}/slurm/spool
SlurmctldPidFile=${root}/run/slurmctld.pid
SlurmdPidFile=${root}/run/slurmd.pid
SlurmctldLogFile=${root}/slurm/log/slurmctld.log
SlurmdLogFile=${root}/slurm/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobCompType=jobcomp/filetxt
JobCompLoc=${root}/slurm/events/jobcomp.log
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=5
ReturnToService=2
SlurmdTimeout=300
MinJobAge=300
MaxJobCount=30000
JobRequeue=0
KillWait=3
MessageTimeout=10
PropagateResourceLimits=NONE
DisableRootJobs=YES
EnforcePartLimits=ALL
SlurmdParameters=config_overrides
${gpus > 0 ? 'GresTypes=gpu\n' : ''}NodeName=node0 NodeHostname=${host} NodeAddr=127.0.0.1 CPUs=${cpus} RealMemory=8000${gpus > 0 ? ` Gres=gpu:test:${gpus}` : ''} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=1-00:00:00 State=UP
`;
}
