import type { Observation } from '../core/executor.ts';
import type { EndStatus, Outcome } from '../core/job.ts';
import type { QueueRow } from './commands.ts';
import type { CompletionRecord } from './job-completion.ts';
import { byNote, type End, outcomeOf } from './outcome.ts';
import { EXIT_CLAIMED_BY_ANOTHER, EXIT_NO_CLAIM } from './script.ts';
import type { Claim, Witness } from './witness.ts';

/** All that is known of one job, from four witnesses that may each be missing, late or of another Slurm job by the same name. */
export interface Evidence {
  /** Slurm's number as we last stored it. */
  readonly externalId: string | null;
  readonly cancelWished: boolean;
  /** Since when it is being handed over; null when it is not. */
  readonly submittingSince: number | null;
  /** squeue's rows by this job's name; null when Slurm was not asked. */
  readonly rows: readonly QueueRow[] | null;
  readonly records: readonly CompletionRecord[];
  readonly witness: Witness;
  /** Whether the process that claimed is there; null when that cannot be known. */
  readonly alive: boolean | null;
  /** Since when it was found dead without Slurm having noticed. */
  readonly deadSince: number | null;
  /** It was seen running in an earlier life of the appliance. */
  readonly earlierLife: boolean;
  readonly position: (row: QueueRow) => number | null;
  readonly now: number;
}

export interface Judgement {
  readonly observation: Observation;
  /** Slurm jobs by the same name that must go: duplicates that have not started, and one that Slurm believes to run but is dead. */
  readonly surplus: readonly string[];
}

/** How long Slurm may take to notice that a script is dead before the witnesses count alone. */
export const NOTICE_MS = 20_000;
/** How long a process may outlive its record (KillWait and the like) before the record counts alone. */
const LINGER_MS = 120_000;

/** Pure. */
export function judge(evidence: Evidence): Judgement {
  const { witness, records } = evidence;
  const rows = evidence.rows ?? [];
  const live = rows.filter((row) => LIVE.has(row.state));
  const claimed = typeof witness.claim === 'object' && witness.claim !== null ? witness.claim : null;
  const mine = ownerId(evidence, live, claimed);
  const waiting = live.filter((row) => row.state === 'PENDING' && row.slurmId !== mine).map((row) => row.slurmId);
  // The first of several: after a loss of memory Slurm ends the same job again, in its own way.
  const record = records.find((each) => (mine === null ? isOfThisTry(each, evidence) : each.slurmId === mine));
  const row = rows.find((each) => each.slurmId === mine);
  const end = record ?? (row !== undefined && !LIVE.has(row.state) ? asRecord(row) : undefined);

  if (witness.claim === null) {
    const waits = live.find((each) => each.slurmId === mine);
    if (waits !== undefined) return { observation: queued(waits, evidence), surplus: waiting };
    if (record !== undefined && mayStartAgain(record, evidence))
      return { observation: { kind: 'gone' }, surplus: waiting };
    if (end !== undefined) return done(endedUnclaimed(end, evidence), waiting);
    if (evidence.rows === null) return unclear('Slurm was not asked');
    return { observation: { kind: 'gone' }, surplus: [] };
  }
  if (end !== undefined && !isSecondLaunch(end, witness)) {
    if (evidence.alive === true && evidence.now - (end.endTime ?? evidence.now) < LINGER_MS) {
      return claimed === null ? unclear('its processes are still ending') : running(claimed, mine, waiting);
    }
    return done(ended(claimed, mine, endAt(evidence, end.endTime), outcomeOf(end, witness.ended)), waiting);
  }
  if (claimed !== null && evidence.alive === true) return running(claimed, mine, waiting);
  return dead(evidence, claimed, mine, end === undefined ? row : undefined, waiting);
}

/**
 * A slurmctld that lost the job's start launches it again, by the same number; the second script finds the claim and leaves. Its end
 * says nothing of the first. (A command may end with that code as well; then the script's own note says so.)
 */
function isSecondLaunch({ state, exitCode }: End, { ended }: Witness): boolean {
  return /^FAILED/.test(state) && exitCode === EXIT_CLAIMED_BY_ANOTHER && ended?.exitCode !== EXIT_CLAIMED_BY_ANOTHER;
}

/**
 * Slurm jobs of a job that has ended for us. What waits is a duplicate. What "runs" since before this life, without a process, is a memory:
 * slurmctld writes its state seconds late, so that after a crash it believes in jobs that had ended, and keeps their CPUs for minutes.
 */
export function leftOver(rows: readonly QueueRow[], bornAt: number, isAlive: () => boolean): string[] {
  // Slurm's times are whole seconds.
  const remembered = ({ state, startTime }: QueueRow) =>
    state === 'RUNNING' && startTime !== null && startTime <= bornAt - 1000 && !isAlive();
  return rows.filter((row) => row.state === 'PENDING' || remembered(row)).map((row) => row.slurmId);
}

/** Of a job whose number we never heard: not the record of an earlier try. Slurm's times are whole seconds. */
function isOfThisTry({ submitTime }: CompletionRecord, { submittingSince }: Evidence): boolean {
  return submittingSince !== null && submitTime !== null && submitTime >= submittingSince - 1000;
}

/** Launches that Slurm may spoil before a job is reported as failed. */
const LAUNCHES = 5;

/**
 * Slurm had taken it and then could not start it, through no fault of the job's and by nobody's wish: the node failed; slurmctld lost
 * its memory and met a job that it did not know ("Duplicate jobid"), or lost the script ("Script for JobId=7 lost, state set to
 * FAILED", which it records as 0:1 without a node). Without a claim the command never ran.
 */
function mayStartAgain({ state, placed, exitCode, signal }: CompletionRecord, evidence: Evidence): boolean {
  if (evidence.cancelWished || evidence.records.length >= LAUNCHES) return false;
  if (/^FAILED/.test(state)) return !placed && exitCode === 0 && signal === 1;
  return /^(NODE_FAIL|BOOT_FAIL)/.test(state) || (placed && /^CANCELLED/.test(state));
}

/** Claimed, and neither alive nor recorded as ended: what the script noted at its end, or nothing. */
function dead(
  evidence: Evidence,
  claimed: Claim | null,
  mine: string | null,
  row: QueueRow | undefined,
  waiting: readonly string[],
): Judgement {
  const { witness, now } = evidence;
  if (evidence.rows === null) return unclear('Slurm was not asked');
  const patient = evidence.deadSince === null || now - evidence.deadSince < NOTICE_MS;
  if (row !== undefined && patient && !evidence.earlierLife) return unclear('Slurm has not noticed its end yet');
  if (evidence.alive === null && row !== undefined) return unclear('cannot see its process');
  if (row === undefined && witness.claim === 'unreadable' && patient) return unclear('its claim is not readable yet');
  const zombie = row === undefined ? waiting : [...waiting, row.slurmId];
  const outcome = witness.ended === null ? vanished(claimed, evidence) : byNote(witness.ended);
  return done(ended(claimed, mine, endAt(evidence, null), outcome), zombie);
}

function vanished(claimed: Claim | null, { earlierLife }: Evidence): Outcome {
  const silent = { exitCode: null, signal: null };
  if (claimed === null) {
    return {
      ...silent,
      status: 'LOST',
      reason: 'it may have started, but it left no readable note and Slurm does not know it',
    };
  }
  if (earlierLife) return { ...silent, status: 'NODE_FAIL', reason: 'the appliance was stopped while the job ran' };
  return {
    ...silent,
    status: 'NODE_FAIL',
    reason: 'its process is gone without a word, and Slurm has no record of its end',
  };
}

/** Which of the Slurm jobs by this name is the job: the one that claimed, else the one we know, else the oldest. */
function ownerId({ externalId }: Evidence, live: readonly QueueRow[], claimed: Claim | null): string | null {
  if (claimed !== null && claimed.slurmId !== null) return claimed.slurmId;
  if (externalId !== null && live.every((row) => row.slurmId !== externalId)) {
    return live.length > 0 ? oldest(live) : externalId;
  }
  return externalId ?? (live.length > 0 ? oldest(live) : null);
}

function oldest(rows: readonly QueueRow[]): string {
  const started = rows.filter((row) => row.state !== 'PENDING');
  return String(Math.min(...(started.length > 0 ? started : rows).map((row) => Number(row.slurmId))));
}

const LIVE = new Set([
  'PENDING',
  'RUNNING',
  'CONFIGURING',
  'COMPLETING',
  'SUSPENDED',
  'STOPPED',
  'SIGNALING',
  'STAGE_OUT',
  'RESIZING',
  'REQUEUED',
  'REQUEUE_FED',
  'REQUEUE_HOLD',
  'SPECIAL_EXIT',
  'RESV_DEL_HOLD',
]);

function queued(row: QueueRow, evidence: Evidence): Observation {
  const starting = row.state !== 'PENDING';
  return {
    kind: 'queued',
    externalId: row.slurmId,
    reason: starting ? 'Starting' : row.reason,
    estimatedStart: starting ? null : row.startTime,
    position: starting ? null : evidence.position(row),
  };
}

function running(claim: Claim, mine: string | null, surplus: readonly string[]): Judgement {
  const externalId = claim.slurmId ?? mine ?? '';
  return { observation: { kind: 'running', externalId, startedAt: claim.at, gpuIds: claim.gpuIds }, surplus };
}

function asRecord(row: QueueRow): End {
  const { slurmId, state, waitStatus, startTime, endTime } = row;
  return { slurmId, state, exitCode: waitStatus >> 8, signal: waitStatus & 127, startTime, endTime };
}

function endedUnclaimed(end: End, evidence: Evidence): Observation {
  const outcome = outcomeOf(end, null);
  const reason =
    end.exitCode === EXIT_NO_CLAIM && outcome.status === 'FAILED'
      ? 'the script could not note its start or read its parameters, so the command did not run: see the log'
      : `${outcome.reason} (the command did not start)`;
  // Without a claim the command did not run: exit code 0 would be somebody else's.
  const status: EndStatus = outcome.status === 'COMPLETED' ? 'FAILED' : outcome.status;
  return ended(null, end.slurmId, end.endTime ?? evidence.now, { ...outcome, status, reason });
}

function ended(claim: Claim | null, externalId: string | null, endedAt: number, outcome: Outcome): Observation {
  return { kind: 'ended', externalId, startedAt: claim?.at ?? null, endedAt, gpuIds: claim?.gpuIds ?? [], outcome };
}

function endAt({ witness, now }: Evidence, endTime: number | null): number {
  return witness.ended?.at ?? endTime ?? now;
}

function done(observation: Observation, surplus: readonly string[]): Judgement {
  return { observation, surplus };
}

function unclear(why: string): Judgement {
  return { observation: { kind: 'unclear', why }, surplus: [] };
}
