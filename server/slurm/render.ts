import { formatTimeLimit } from '../core/time-limit.ts';

/** Slurm's version as numbers: `slurm-wlm 22.05.8` is { major: 22, minor: 5 }. */
export interface SlurmVersion {
  readonly major: number;
  readonly minor: number;
}

export function parseVersion(text: string): SlurmVersion | null {
  const match = /\b(\d{2})\.(\d{2})\b/.exec(text);
  return match === null ? null : { major: Number(match[1]), minor: Number(match[2]) };
}

export function atLeast(version: SlurmVersion, major: number, minor: number): boolean {
  return version.major > major || (version.major === major && version.minor >= minor);
}

/** How jobs are tracked: not by cgroups, or by those of this host. `delegated`: no systemd manages them (a container). */
export type CgroupMode = 'none' | 'v1' | 'v2-systemd' | 'v2-delegated';

export interface SlurmFacts {
  readonly version: SlurmVersion;
  readonly nodeName: string;
  readonly controllerHost: string;
  readonly nodeHost: string;
  readonly cpus: number;
  readonly memoryMiB: number;
  /** Device files of each GPU, in gres order. */
  readonly gpus: readonly (readonly string[])[];
  readonly gpuType: string;
  readonly maxTimeSeconds: number;
  readonly slurmctldPort: number;
  readonly slurmdPort: number;
  readonly cgroup: CgroupMode;
  readonly files: {
    readonly mungeSocket: string;
    readonly state: string;
    readonly spool: string;
    readonly run: string;
    readonly jobCompletion: string;
  };
}

export interface Templates {
  readonly slurm: string;
  readonly gres: string;
  readonly cgroup: string;
}

/** Fills the templates for the Slurm that is installed. Returns the three files' texts. */
export function render(templates: Templates, facts: SlurmFacts): Templates {
  const { gpus, files, cgroup } = facts;
  return {
    slurm: fill(templates.slurm, {
      CONTROLLER_HOST: facts.controllerHost,
      SLURMCTLD_PORT: facts.slurmctldPort,
      SLURMD_PORT: facts.slurmdPort,
      MUNGE_SOCKET: files.mungeSocket,
      STATE: files.state,
      SPOOL: files.spool,
      RUN: files.run,
      JOBCOMP: files.jobCompletion,
      PROCTRACK: cgroup === 'none' ? 'proctrack/linuxproc' : 'proctrack/cgroup',
      TASK_PLUGIN: cgroup === 'none' ? '' : 'TaskPlugin=task/cgroup',
      GRES_TYPES: gpus.length > 0 ? 'GresTypes=gpu' : '',
      NODE_NAME: facts.nodeName,
      NODE_HOST: facts.nodeHost,
      CPUS: facts.cpus,
      MEMORY_MB: facts.memoryMiB,
      NODE_GRES: gpus.length > 0 ? ` Gres=gpu:${facts.gpuType}:${gpus.length}` : '',
      MAX_TIME: formatTimeLimit(facts.maxTimeSeconds),
    }),
    gres: fill(templates.gres, {
      GPUS: gpus
        .map((each) => `NodeName=${facts.nodeName} Name=gpu Type=${facts.gpuType} ${gresFile(each)}`)
        .join('\n'),
    }),
    cgroup: fill(templates.cgroup, { CGROUP: cgroupLines(facts.version, cgroup).join('\n') }),
  };
}

/** MultipleFiles (21.08 and later) makes several device nodes one GPU, as a MIG instance needs. */
function gresFile(files: readonly string[]): string {
  return files.length === 1 ? `File=${files[0]}` : `MultipleFiles=${files.join(',')}`;
}

/**
 * `CgroupPlugin=disabled` exists from 24.05; before it, cgroup/v1 is the one whose start touches nothing. 21.08 has no
 * `cgroup/v2` and picks no plugin by itself, but reads the line. `CgroupAutomount` is never written: 23.11 refuses it.
 */
function cgroupLines(version: SlurmVersion, mode: CgroupMode): string[] {
  if (mode === 'none') return [`CgroupPlugin=${atLeast(version, 24, 5) ? 'disabled' : 'cgroup/v1'}`];
  const constrain = ['ConstrainCores=yes', 'ConstrainRAMSpace=yes', 'ConstrainDevices=yes'];
  if (mode === 'v1') return ['CgroupPlugin=cgroup/v1', 'CgroupMountpoint=/sys/fs/cgroup', ...constrain];
  if (mode === 'v2-systemd') return ['CgroupPlugin=cgroup/v2', ...constrain];
  return ['CgroupPlugin=cgroup/v2', 'IgnoreSystemd=yes', ...constrain];
}

function fill(template: string, values: Readonly<Record<string, string | number>>): string {
  const filled = template.replace(/\{\{([A-Z_]+)\}\}/g, (_, name: string) => {
    const value = values[name];
    if (value === undefined) throw new Error(`slurm-conf names {{${name}}}, which nobody fills`);
    return String(value);
  });
  return filled.replace(/\n{3,}/g, '\n\n');
}
