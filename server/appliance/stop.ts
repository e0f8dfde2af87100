import { closeSync, existsSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { removeCgroups } from '../slurm/detect-cgroup.ts';
import { pathsIn } from '../storage/paths.ts';
import { ALREADY_STOPPING, readFacts, runPaths, slurmEnvironment } from './facts.ts';
import {
  allProcesses,
  end,
  environmentOf,
  isAlive,
  type ProcessId,
  readProcess,
  sharesOurFiles,
  signal,
  waitForEnd,
} from './processes.ts';

/**
 * The orderly end, run by the supervisor when it is told to stop: the API first, so that nothing new comes in, then the jobs (TERM, a
 * grace, KILL), then the daemons. The script that calls it ends the supervisor after it. Docker gives 10 s in all; every step has its
 * own limit, and none stops the next.
 */
const API_MILLISECONDS = 5000;
const JOB_GRACE_MILLISECONDS = 2500;
const JOB_END_MILLISECONDS = 1500;
const DAEMON_MILLISECONDS = 2500;
const BUCKET_MILLISECONDS = 1500;

const root = process.argv[2];
if (root === undefined) throw new Error('usage: stop.mjs JR_ROOT');
const run = runPaths(root);
const facts = readFacts(root);
const env = slurmEnvironment(root);

if (mayStop()) {
  process.stderr.write('jobrunner: stopping\n');
  await Promise.all([down('api', API_MILLISECONDS), drain()]);
  await endJobs();
  await Promise.all([down('slurmd', DAEMON_MILLISECONDS), down('slurmctld', DAEMON_MILLISECONDS)]);
  // A step whose job is gone goes on telling a slurmctld that is gone as well.
  for (const each of ownStepDaemons()) signal(each, 'SIGKILL');
  await Promise.all([down('munged', 1000), down('bucket', BUCKET_MILLISECONDS)]);
  removeCgroups('/sys/fs/cgroup', facts.node.nodeName);
} else process.exitCode = ALREADY_STOPPING;

/** Once: a second signal changes nothing. */
function mayStop(): boolean {
  try {
    closeSync(openSync(run.stopping, 'wx'));
    return true;
  } catch {
    return false;
  }
}

async function down(service: string, milliseconds: number): Promise<void> {
  const folder = join(run.services, service);
  if (!existsSync(folder)) return;
  const answer = await quietly('s6-svc', ['-wd', '-T', String(milliseconds), '-d', folder], milliseconds + 500);
  if (answer === null) await quietly('s6-svc', ['-wd', '-T', '1000', '-dk', folder], 1500);
}

async function drain(): Promise<void> {
  await quietly('scontrol', ['update', `nodename=${facts.node.nodeName}`, 'state=drain', 'reason=stopping'], 2000);
}

async function endJobs(): Promise<void> {
  const before = await jobProcesses();
  if (before.length === 0) return;
  const steps = stepDaemons(before);
  // CANCELLED in Slurm's record, which the next life reports for what it was: the appliance stopped.
  await Promise.all(['RUNNING', 'SUSPENDED'].map((state) => quietly('scancel', [`--state=${state}`], 2000)));
  await waitForEnd(before, JOB_GRACE_MILLISECONDS);
  const left = [...before.filter(isAlive), ...(await jobProcesses())];
  for (const each of left) signal(each, 'SIGKILL');
  await waitForEnd(left, 500);
  const stuck = await waitForEnd(steps, JOB_END_MILLISECONDS);
  await end(stuck, 200);
}

/** The processes of all jobs, as slurmd knows them. */
async function jobProcesses(): Promise<ProcessId[]> {
  const text = (await quietly('scontrol', ['listpids', '*', facts.node.nodeName], 2000)) ?? '';
  return text.split('\n').flatMap((line) => {
    const pid = Number(/^\s*(\d+)\s/.exec(line)?.[1] ?? 0);
    const found = pid > 1 ? readProcess(pid) : null;
    return found === null ? [] : [found];
  });
}

/** Every slurmstepd that was started by this appliance's slurmd, and by none of the same path in a container. */
function ownStepDaemons(): ProcessId[] {
  const ours = `SLURM_CONF=${pathsIn(root ?? '').slurmConf}`;
  return allProcesses().filter(
    ({ pid, comm }) =>
      comm.startsWith('slurmstepd') && sharesOurFiles(pid) && environmentOf(pid).split('\0').includes(ours),
  );
}

/** slurmstepd: the nearest ancestor of that name. */
function stepDaemons(processes: readonly ProcessId[]): ProcessId[] {
  const all = new Map(allProcesses().map((each) => [each.pid, each]));
  const found = new Map<number, ProcessId>();
  for (const { pid } of processes) {
    for (let each = all.get(pid); each !== undefined; each = all.get(each.parent)) {
      if (each.comm.startsWith('slurmstepd')) {
        found.set(each.pid, each);
        break;
      }
    }
  }
  return [...found.values()];
}

/** Its output, or null when it failed or took too long. */
async function quietly(file: string, args: readonly string[], milliseconds: number): Promise<string | null> {
  const answer = await execa(file, [...args], {
    env,
    extendEnv: false,
    stdin: 'ignore',
    reject: false,
    timeout: milliseconds,
    killSignal: 'SIGKILL',
  });
  return answer.exitCode === 0 ? String(answer.stdout) : null;
}
