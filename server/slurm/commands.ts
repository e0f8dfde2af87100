import { AppError } from '../core/errors.ts';
import type { JobId, Resources } from '../core/job.ts';
import { formatTimeLimit } from '../core/time-limit.ts';

/**
 * Slurm's programs, each as two pure halves: the argv, and the reader of what came back. Texts and formats were recorded from 22.05
 * (`test/fixtures/slurm`); the options and `-O` fields are the same in 24.11.
 */

/** Carries our id into Slurm. Slurm's own numbers are given out again after a crash and key nothing. */
export function slurmJobName(id: JobId): string {
  return `jr-${id}`;
}

export function jobIdOfName(name: string): JobId | null {
  const match = /^jr-([1-9]\d{0,14})$/.exec(name);
  return match?.[1] === undefined ? null : Number(match[1]);
}

/** Where the script of a job is and where it may write. */
export interface SbatchPlaces {
  readonly script: string;
  readonly log: string;
  readonly folder: string;
}

export function sbatchArguments(id: JobId, resources: Resources, places: SbatchPlaces): string[] {
  return [
    '--parsable',
    `--job-name=${slurmJobName(id)}`,
    // sbatch(1), "filename pattern": %% is a percent sign.
    `--output=${places.log.replaceAll('%', '%%')}`,
    '--open-mode=append',
    `--chdir=${places.folder}`,
    '--ntasks=1',
    `--cpus-per-task=${resources.cpus}`,
    `--mem=${resources.memoryMiB}M`,
    `--time=${formatTimeLimit(resources.timeLimitSeconds)}`,
    ...(resources.gpus > 0 ? [`--gres=gpu:${resources.gpus}`] : []),
    '--no-requeue',
    places.script,
  ];
}

/** What a finished client said. `exitCode` is null when it was killed. */
export interface Said {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number | null;
}

/** Returns Slurm's number. Throws `refused_by_scheduler` or `unavailable` with sbatch's own words. */
export function readSbatch({ stdout, stderr, exitCode }: Said): string {
  const match = /^(\d{1,10})(?:;\S*)?\s*$/.exec(stdout);
  if (exitCode === 0 && match?.[1] !== undefined) return match[1];
  const words = wordsOf(stderr);
  if (exitCode !== null && isRefusal(words))
    throw new AppError('refused_by_scheduler', `Slurm refused the job: ${words}`);
  throw new AppError('unavailable', `sbatch: ${words || 'no answer'}`);
}

/**
 * Refusals are known by their words; everything else (no controller, no munged, a full disk, a partition that is down) may pass.
 * From slurm_errno.c of 22.05 and 24.11, where they are the same.
 */
const REFUSALS = [
  /Requested node configuration is not available/,
  /More processors requested than permitted/,
  /Memory specification can not be satisfied/,
  /Requested time limit is invalid/,
  /Invalid (--\S+|generic resource|account|qos|partition name|user id|job name|feature|node count|directive)/i,
  /invalid partition specified/,
  /Job violates (accounting|QOS)/,
  /User's group not permitted/,
  /Pathname of a file, directory or other parameter too long/,
  /unrecognized option|Unable to open file/,
];

function isRefusal(words: string): boolean {
  return REFUSALS.some((pattern) => pattern.test(words));
}

/** What a client wrote to stderr, without its `sbatch: error:` prefixes, in one line. */
export function wordsOf(stderr: string): string {
  return stderr
    .split('\n')
    .map((line) => line.replace(/^\w+: (error: |fatal: )?/, '').trim())
    .filter((line) => line !== '')
    .join('; ')
    .slice(0, 1000);
}

/** One row of squeue. Times are milliseconds since the epoch. */
export interface QueueRow {
  readonly slurmId: string;
  readonly jobId: JobId;
  readonly state: string;
  /** The wait status as wait(2) gives it: exit code * 256 + signal. */
  readonly waitStatus: number;
  readonly priority: number;
  readonly startTime: number | null;
  readonly endTime: number | null;
  readonly reason: string;
}

/** Each field ends with `|`: squeue's `-O type:|` (squeue(1), "suffix"). The reason is last, since it is words. */
const QUEUE_FIELDS = ['JobID', 'Name', 'State', 'exit_code', 'PriorityLong', 'StartTime', 'EndTime', 'Reason'];

/** `-t all` also shows what ended in the last MinJobAge seconds. */
export function squeueArguments(name?: string): string[] {
  const format = QUEUE_FIELDS.map((field) => `${field}:|`).join(',');
  return [
    '--noheader',
    '--all',
    '--states=all',
    ...(name === undefined ? [] : [`--name=${name}`]),
    `--Format=${format}`,
  ];
}

/** Rows of our jobs; lines of other jobs and lines that make no sense are left out. */
export function readSqueue(text: string): QueueRow[] {
  const rows: QueueRow[] = [];
  for (const line of text.split('\n')) {
    const [slurmId, name, state, wait, priority, start, end, ...reason] = line.split('|');
    const jobId = jobIdOfName(name ?? '');
    if (jobId === null || slurmId === undefined || state === undefined) continue;
    rows.push({
      slurmId,
      jobId,
      state,
      waitStatus: Number(wait) || 0,
      priority: Number(priority) || 0,
      startTime: seconds(start),
      endTime: seconds(end),
      reason: reason.join('|').replace(/\|$/, ''),
    });
  }
  return rows;
}

/** The environment asks for epoch seconds (SLURM_TIME_FORMAT=%s); `N/A` when there is no time yet. */
function seconds(text: string | undefined): number | null {
  return text !== undefined && /^\d{9,11}$/.test(text) ? Number(text) * 1000 : null;
}

/** By name always, so that a number that was given out again is never hit; by number too where one of several is meant. */
export function scancelArguments(id: JobId, externalId: string | null): string[] {
  return [`--name=${slurmJobName(id)}`, ...(externalId === null ? [] : [externalId])];
}

/** Whether scancel could not ask at all; that the job is unknown or ended is fine. */
export function scancelFailed({ stderr, exitCode }: Said): boolean {
  if (exitCode === 0) return false;
  return !/Invalid job id specified|Job\/step already completing or completed/i.test(stderr);
}

/** There is one node. */
export function scontrolNodeArguments(): string[] {
  return ['-o', 'show', 'node'];
}

/**
 * The node's name when slurmctld itself drained it because slurmd knew a job that slurmctld had forgotten (job_mgr.c, "Duplicate
 * jobid"); null otherwise.
 */
export function drainedByForgetfulness(node: string): string | null {
  if (!/ State=\S*DRAIN/.test(node) || !/ Reason=Duplicate jobid \[slurm@/.test(node)) return null;
  return /^NodeName=([\w-]+) /.exec(node)?.[1] ?? null;
}

export function scontrolResumeArguments(nodeName: string): string[] {
  return ['update', `nodename=${nodeName}`, 'state=resume'];
}
