import { setTimeout as delay } from 'node:timers/promises';
import { execa } from 'execa';
import { AppError } from '../../core/errors.ts';
import type { JobId } from '../../core/job.ts';
import {
  readSqueue,
  scancelArguments,
  scancelFailed,
  slurmJobName,
  squeueArguments,
  wordsOf,
} from '../../slurm/commands.ts';
import { type Claim, isAlive, readWitness } from '../../slurm/witness.ts';
import type { RequestOf, ResponseOf } from '../protocol.ts';
import type { OpsContext } from './context.ts';
import { runClient } from './run-client.ts';

/** What a job that Slurm has forgotten may take to end by itself after SIGTERM. */
const LAST_WORDS_MS = 3000;
/** States in which Slurm has the job's processes in hand and ends them itself. */
const IN_HAND = /^(RUNNING|COMPLETING|SUSPENDED|STOPPED|SIGNALING)$/;

/** Fine when the job has ended or is unknown. Throws `unavailable`. */
export async function cancel(
  context: OpsContext,
  { jobId, externalId }: RequestOf<'cancel'>,
  signal: AbortSignal,
): Promise<ResponseOf<'cancel'>> {
  const said = await runClient(context, 'scancel', scancelArguments(jobId, externalId), signal);
  if (scancelFailed(said)) throw new AppError('unavailable', `scancel: ${wordsOf(said.stderr) || 'no answer'}`);
  const { claim } = readWitness(context.paths, jobId);
  if (claim !== null && claim !== 'unreadable' && isAlive(claim) === true)
    await endOrphan(context, jobId, claim, signal);
  return {};
}

/**
 * A slurmctld that died a moment after the job's start comes back without that start: it ends a job that waits, or none, and the
 * processes run on. Which process it is stands in a file that jobs may write; so the signals are sent by their user, who could
 * have sent them himself.
 */
async function endOrphan(context: OpsContext, jobId: JobId, claim: Claim, signal: AbortSignal): Promise<void> {
  const said = await runClient(context, 'squeue', squeueArguments(slurmJobName(jobId)), signal);
  if (said.exitCode !== 0) return;
  const rows = readSqueue(said.stdout);
  if (rows.some((row) => row.slurmId === claim.slurmId && IN_HAND.test(row.state))) return;
  await signalGroup(context, claim, 'TERM');
  for (const until = Date.now() + LAST_WORDS_MS; isAlive(claim) === true && Date.now() < until; ) await delay(50);
  if (isAlive(claim) === true) await signalGroup(context, claim, 'KILL');
}

async function signalGroup({ submitUser, jobPath }: OpsContext, { pid }: Claim, name: string): Promise<void> {
  await execa('kill', ['-s', name, '--', `-${pid}`], {
    uid: submitUser.uid,
    gid: submitUser.gid,
    cwd: '/',
    env: { PATH: jobPath },
    extendEnv: false,
    stdin: 'ignore',
    timeout: 5000,
    reject: false,
  });
}
