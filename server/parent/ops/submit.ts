import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fchownSync,
  lstatSync,
  mkdirSync,
  openSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { AppError } from '../../core/errors.ts';
import type { JobId } from '../../core/job.ts';
import {
  readSbatch,
  readSqueue,
  sbatchArguments,
  slurmJobName,
  squeueArguments,
  wordsOf,
} from '../../slurm/commands.ts';
import type { RequestOf, ResponseOf } from '../protocol.ts';
import type { OpsContext } from './context.ts';
import { runClient } from './run-client.ts';

/**
 * Makes what a job needs and runs sbatch as the submit user. Twice for one job: if Slurm has a job by its name, that one's number.
 * All folders that are written to here are root's, so that nobody can have put a link in the way.
 */
export async function submit(
  context: OpsContext,
  request: RequestOf<'submit'>,
  signal: AbortSignal,
): Promise<ResponseOf<'submit'>> {
  const { jobId, script, params } = request;
  const { paths } = context;
  const again = !makeFolder(paths.jobFolder(jobId), ROOT, 0o755);
  if (again) {
    const known = await findAlive(context, jobId, signal);
    if (known !== null) return { externalId: known };
    if (existsSync(paths.witnessStarted(jobId))) {
      throw new AppError('unavailable', `job ${jobId} has started before: its witness is to be asked`);
    }
  }
  if (again) {
    // What an interrupted try left is replaced.
    for (const path of [paths.jobScript(jobId), paths.jobParams(jobId)]) rmSync(path, { force: true });
  }
  writeNew(paths.jobScript(jobId), script, ROOT, 0o644);
  writeNew(paths.jobParams(jobId), params, context.submitUser, 0o600);
  const shared = { uid: context.submitUser.uid, gid: context.apiGid };
  makeLog(paths.log(jobId), shared);
  makeFolder(paths.result(jobId), shared, 0o2770);
  const places = { script: paths.jobScript(jobId), log: paths.log(jobId), folder: paths.result(jobId) };
  return {
    externalId: readSbatch(await runClient(context, 'sbatch', sbatchArguments(jobId, request, places), signal)),
  };
}

interface Owner {
  readonly uid: number;
  readonly gid: number;
}

const ROOT: Owner = { uid: 0, gid: 0 };

/** Returns false when it was there already (and makes good what a crash between making it and giving it away left). */
function makeFolder(path: string, { uid, gid }: Owner, mode: number): boolean {
  let made = true;
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw spaceError(error);
    if (!lstatSync(path).isDirectory()) throw new AppError('internal', 'a folder of a job is no folder');
    made = false;
  }
  if (uid !== 0) chownSync(path, uid, gid);
  chmodSync(path, mode);
  return made;
}

/** The folder is root's and the file is new, so that nothing can have been put in its place. */
function writeNew(path: string, text: string, { uid, gid }: Owner, mode: number): void {
  try {
    const fd = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600);
    try {
      writeFileSync(fd, text);
      if (uid !== 0) fchownSync(fd, uid, gid);
      if (mode !== 0o600) fchmodSync(fd, mode);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw spaceError(error);
  }
}

/** Never truncates: it may be the log of a job that runs. */
function makeLog(path: string, { uid, gid }: Owner): void {
  const { O_WRONLY, O_CREAT, O_APPEND, O_NOFOLLOW, O_NONBLOCK } = constants;
  const fd = openSync(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK, 0o600);
  try {
    fchownSync(fd, uid, gid);
    fchmodSync(fd, 0o640);
  } finally {
    closeSync(fd);
  }
}

function spaceError(error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return error;
  return new AppError('unavailable', 'the disk is full', { cause: error });
}

async function findAlive(context: OpsContext, jobId: JobId, signal: AbortSignal): Promise<string | null> {
  const said = await runClient(context, 'squeue', squeueArguments(slurmJobName(jobId)), signal);
  if (said.exitCode !== 0) throw new AppError('unavailable', `squeue: ${wordsOf(said.stderr) || 'no answer'}`);
  const rows = readSqueue(said.stdout).filter((row) => row.jobId === jobId);
  return rows.find((row) => /^(PENDING|RUNNING|CONFIGURING|COMPLETING|SUSPENDED)$/.test(row.state))?.slurmId ?? null;
}
