import type { Observation, TrackedJob } from './executor.ts';
import type { JobState, Outcome } from './job.ts';

/** What the reconciler has to do after the new state is on the disk. Each may be repeated. */
export type Action = 'none' | 'submit' | 'cancel' | 'collect';

export interface Step {
  readonly state: JobState;
  readonly action: Action;
}

export interface Moment {
  readonly now: number;
  /** Which life of the appliance this is. */
  readonly generation: string;
}

/**
 * How long a job that is being handed over may be unknown to the scheduler before it is handed over again: a client that
 * outlived the crash of the one who started it may still be at the door.
 */
export const ORPHAN_GRACE_MS = 2000;

/**
 * The only function that moves a job. `seen` is null when nobody was asked. The intention (`submitting`) is stored before the
 * scheduler hears of the job; what was stored is believed until there is news, and absence of news is not news.
 */
export function nextStep(job: TrackedJob, seen: Observation | null, moment: Moment): Step {
  const { state } = job;
  const wished = job.cancelRequestedAt !== null;
  switch (state.phase) {
    case 'pending':
      if (wished) return { state: neverStarted(moment.now), action: 'none' };
      return { state: { phase: 'submitting', since: moment.now }, action: 'submit' };
    case 'submitting':
    case 'queued':
    case 'running':
      return seen === null ? stay(state) : follow(job, state, seen, moment);
    case 'collecting':
      return { state, action: 'collect' };
    case 'finished':
      return stay(state);
  }
}

type Live = Extract<JobState, { phase: 'submitting' | 'queued' | 'running' }>;

function follow(job: TrackedJob, state: Live, seen: Observation, { now, generation }: Moment): Step {
  const wished = job.cancelRequestedAt !== null;
  const live = wished ? 'cancel' : 'none';
  switch (seen.kind) {
    case 'unclear':
      return stay(state);
    case 'gone':
      if (state.phase === 'submitting' && now - state.since < ORPHAN_GRACE_MS) return stay(state);
      if (wished) return { state: neverStarted(now), action: 'none' };
      return { state: { phase: 'submitting', since: now }, action: 'submit' };
    case 'queued': {
      // A job that was seen running does not queue again: only its claim's owner counts, and that one is known.
      if (state.phase === 'running') return { state, action: live };
      const { externalId, reason, estimatedStart } = seen;
      const same = state.phase === 'queued' && state.externalId === externalId && state.reason === reason;
      return { state: same ? state : { phase: 'queued', externalId, reason, estimatedStart }, action: live };
    }
    case 'running': {
      const { externalId, startedAt, gpuIds } = seen;
      const same = state.phase === 'running' && state.externalId === externalId && state.generation === generation;
      return { state: same ? state : { phase: 'running', externalId, startedAt, gpuIds, generation }, action: live };
    }
    case 'ended': {
      const { externalId, startedAt, endedAt, gpuIds } = seen;
      const outcome = explain(seen.outcome, { wished, stopped: isOfEarlierLife(state, generation) });
      return { state: { phase: 'collecting', externalId, startedAt, endedAt, gpuIds, outcome }, action: 'collect' };
    }
  }
}

function stay(state: JobState): Step {
  return { state, action: 'none' };
}

function isOfEarlierLife(state: Live, generation: string): boolean {
  return state.phase === 'running' && state.generation !== generation;
}

/** Slurm says CANCELLED both when somebody wished it and when the appliance was stopped under a running job. */
function explain(outcome: Outcome, { wished, stopped }: { wished: boolean; stopped: boolean }): Outcome {
  if (wished && endedByWish(outcome)) return { ...outcome, status: 'CANCELLED', reason: 'cancelled on request' };
  if (outcome.status !== 'CANCELLED') return outcome;
  if (stopped) return { ...outcome, status: 'NODE_FAIL', reason: 'the appliance was stopped while the job ran' };
  return outcome;
}

/** Also where Slurm had forgotten the job, and nobody but its script could tell how it ended. */
function endedByWish({ status, exitCode, signal }: Outcome): boolean {
  if (status === 'FAILED') return [137, 143].includes(exitCode ?? 0) || [9, 15].includes(signal ?? 0);
  return status === 'CANCELLED' || status === 'NODE_FAIL' || status === 'LOST';
}

function neverStarted(now: number): JobState {
  return {
    phase: 'finished',
    externalId: null,
    startedAt: null,
    endedAt: now,
    gpuIds: [],
    outcome: { status: 'CANCELLED', exitCode: null, signal: null, reason: 'cancelled on request before it started' },
  };
}

/** The scheduler will not have it. */
export function refused(reason: string, now: number): JobState {
  return {
    phase: 'finished',
    externalId: null,
    startedAt: null,
    endedAt: now,
    gpuIds: [],
    outcome: { status: 'REFUSED', exitCode: null, signal: null, reason },
  };
}

/** Outputs are indexed (or, with a note, could not be). */
export function collected(state: Extract<JobState, { phase: 'collecting' }>, note: string | null): JobState {
  const outcome =
    note === null
      ? state.outcome
      : { ...state.outcome, reason: [state.outcome.reason, note].filter(Boolean).join('; ') };
  return { ...state, phase: 'finished', outcome };
}

/** Slurm's state word; `SUBMITTED` before Slurm has the job. */
export function statusOf(state: JobState): string {
  switch (state.phase) {
    case 'pending':
    case 'submitting':
      return 'SUBMITTED';
    case 'queued':
      return 'PENDING';
    case 'running':
      return 'RUNNING';
    case 'collecting':
      return 'COMPLETING';
    case 'finished':
      return state.outcome.status;
  }
}

export function externalIdOf(state: JobState): string | null {
  return state.phase === 'pending' || state.phase === 'submitting' ? null : state.externalId;
}
