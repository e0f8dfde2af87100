import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import type { Settings } from '../config.ts';
import type { NodeFacts } from '../core/node.ts';
import { parseTimeLimit } from '../core/time-limit.ts';
import { prepareCgroups } from '../slurm/detect-cgroup.ts';
import { describeMachine, type Machine } from '../slurm/machine.ts';
import { type CgroupMode, parseVersion, render, type SlurmVersion, type Templates } from '../slurm/render.ts';
import { pathsIn } from '../storage/paths.ts';
import { daemonEnvironment, runPaths, slurmEnvironment, slurmHostName } from './facts.ts';
import { StartError } from './fault.ts';
import { pickPorts, type SlurmPorts } from './ports.ts';

/** Detects, renders slurm-conf/ into JR_ROOT/slurm/etc, and lets slurmd try what came out, so that a fault is one line now and not a loop of restarts. */
export async function configureSlurm(options: {
  readonly root: string;
  readonly app: string;
  readonly settings: Settings;
}): Promise<{ readonly machine: Machine; readonly node: NodeFacts; readonly ports: SlurmPorts }> {
  const { root, app, settings } = options;
  const paths = pathsIn(root);
  const [version, machine, ports] = await Promise.all([slurmVersion(), askMachine(settings), pickPorts(root)]);
  const cgroup = settings.JR_USE_CGROUPS ? cgroupMode(version) : 'none';
  const shortName = slurmHostName(hostname());
  const node: NodeFacts = {
    // Jobs and node records name the node, so its name never changes; the host's may. Only Slurm's cgroup v1 folders are called
    // after the node and not after the cluster: there two appliances on one host need two names.
    nodeName: cgroup === 'none' ? 'node0' : `node0x${createHash('sha256').update(root).digest('hex').slice(0, 6)}`,
    cpus: machine.cpus,
    memoryMiB: machine.memoryMiB,
    gpuType: machine.gpuType,
    maxTimeSeconds: parseTimeLimit(settings.JR_MAX_TIME) ?? 7 * 86_400,
    gpus: machine.gpus.map(({ files, uuid, name }, index) => ({ index, file: files[0] ?? '', uuid, name })),
  };
  const template = (name: string) => readFileSync(join(app, 'slurm-conf', name), 'utf8');
  const rendered = render(
    { slurm: template('slurm.conf'), gres: template('gres.conf'), cgroup: template('cgroup.conf') },
    {
      version,
      nodeName: node.nodeName,
      controllerHost: shortName,
      nodeHost: slurmHostName(settings.JR_HOSTNAME ?? shortName),
      cpus: node.cpus,
      memoryMiB: node.memoryMiB,
      gpus: machine.gpus.map(({ files }) => files),
      gpuType: node.gpuType,
      maxTimeSeconds: node.maxTimeSeconds,
      slurmctldPort: ports.slurmctld,
      slurmdPort: ports.slurmd,
      cgroup,
      files: {
        mungeSocket: runPaths(root).mungeSocket,
        state: paths.slurmState,
        spool: paths.slurmSpool,
        run: paths.run,
        jobCompletion: paths.jobCompletion,
      },
    },
  );
  const folder = join(paths.slurm, 'etc');
  writeFileSync(join(folder, 'slurm.conf'), rendered.slurm);
  writeFileSync(join(folder, 'gres.conf'), rendered.gres);
  writeFileSync(join(folder, 'cgroup.conf'), rendered.cgroup);
  await preflight(root, node.nodeName, rendered);
  return { machine, node, ports };
}

async function askMachine(settings: Settings): Promise<Machine> {
  try {
    return await describeMachine({
      gpus: settings.JR_NUM_GPUS,
      cpus: settings.JR_NUM_CPUS,
      memoryMiB: settings.JR_REAL_MEM_MB,
      gpuType: settings.JR_GPU_TYPE,
      devicePrefix: settings.JR_GPU_DEV_PREFIX,
    });
  } catch (error) {
    throw error instanceof RangeError ? new StartError(error.message) : error;
  }
}

async function slurmVersion(): Promise<SlurmVersion> {
  const { stdout } = await execa('slurmd', ['-V'], { reject: false, timeout: 10_000 });
  const version = parseVersion(String(stdout));
  if (version === null)
    throw new StartError(`cannot tell Slurm's version from "slurmd -V" (it said ${JSON.stringify(stdout)})`);
  return version;
}

function cgroupMode(version: SlurmVersion): CgroupMode {
  const answer = prepareCgroups(
    version,
    '/sys/fs/cgroup',
    existsSync('/run/systemd/system') && existsSync('/run/dbus/system_bus_socket'),
  );
  if (answer.possible) return answer.mode;
  throw new StartError(
    `JR_USE_CGROUPS=1 is not possible here: ${answer.reason}. Set JR_USE_CGROUPS=0, or give the container the rights`,
  );
}

/**
 * `slurmd -G` parses the configuration, starts the cgroup plugin and looks at the GPUs' device files, and exits. It works on a copy
 * without munge: from 23.11 on slurmd asks munged for a credential first (auth_munge.c), and munged does not run yet.
 */
async function preflight(root: string, nodeName: string, rendered: Templates): Promise<void> {
  const folder = join(pathsIn(root).run, 'preflight');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'slurm.conf'), rendered.slurm.replace(/^AuthType=.*$/m, 'AuthType=auth/none'));
  writeFileSync(join(folder, 'gres.conf'), rendered.gres);
  writeFileSync(join(folder, 'cgroup.conf'), rendered.cgroup);
  const { exitCode, stderr, timedOut } = await execa('slurmd', ['-G', '-N', nodeName], {
    reject: false,
    timeout: 10_000,
    env: { ...slurmEnvironment(root), ...daemonEnvironment(hostname()), SLURM_CONF: join(folder, 'slurm.conf') },
    extendEnv: false,
  });
  rmSync(folder, { recursive: true, force: true });
  if (exitCode === 0) return;
  const lines = String(stderr)
    .split('\n')
    .filter((line) => /error|fatal/.test(line));
  throw new StartError(
    `slurmd refuses the configuration: ${timedOut ? 'no answer in 10 s; ' : ''}${lines.slice(-3).join('; ') || String(stderr).slice(-300)}`,
  );
}
