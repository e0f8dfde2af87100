import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Observation, TrackedJob } from '../../core/executor.ts';
import type { JobState, Outcome } from '../../core/job.ts';
import { collected, nextStep, ORPHAN_GRACE_MS, statusOf } from '../../core/next-step.ts';

const now = 1_000_000;
const moment = { now, generation: 'G2' };
const outcome = (status: Outcome['status']): Outcome => ({ status, exitCode: null, signal: null, reason: 'r' });

const PENDING: JobState = { phase: 'pending' };
const SUBMITTING: JobState = { phase: 'submitting', since: now - ORPHAN_GRACE_MS };
const FRESH: JobState = { phase: 'submitting', since: now - 1 };
const QUEUED: JobState = { phase: 'queued', externalId: '5', reason: 'Priority', estimatedStart: null };
const RUNNING: JobState = { phase: 'running', externalId: '5', startedAt: 1, gpuIds: [], generation: 'G2' };
const BEFORE: JobState = { ...RUNNING, generation: 'G1' };
const ended = { externalId: '5', startedAt: 1, endedAt: 2, gpuIds: [] };
const COLLECTING: JobState = { phase: 'collecting', ...ended, outcome: outcome('COMPLETED') };
const FINISHED: JobState = { phase: 'finished', ...ended, outcome: outcome('COMPLETED') };

const GONE: Observation = { kind: 'gone' };
const UNCLEAR: Observation = { kind: 'unclear', why: '' };
const WAITS: Observation = { kind: 'queued', externalId: '5', reason: 'Priority', estimatedStart: 9, position: 1 };
const RUNS: Observation = { kind: 'running', externalId: '5', startedAt: 1, gpuIds: [] };
const ENDED: Observation = { kind: 'ended', ...ended, outcome: outcome('COMPLETED') };
const CANCELLED: Observation = { kind: 'ended', ...ended, outcome: outcome('CANCELLED') };

type Row = readonly [
  what: string,
  state: JobState,
  wished: boolean,
  seen: Observation | null,
  phase: string,
  action: string,
];
const TABLE: readonly Row[] = [
  ['a stored job is handed over', PENDING, false, null, 'submitting', 'submit'],
  ['a stored job that is no longer wanted never starts', PENDING, true, null, 'finished', 'none'],
  ['without news nothing happens', SUBMITTING, false, null, 'submitting', 'none'],
  ['an unclear answer is no news', RUNNING, false, UNCLEAR, 'running', 'none'],
  ['a job that Slurm does not know is handed over again', SUBMITTING, false, GONE, 'submitting', 'submit'],
  ['but not while a client may still be on its way', FRESH, false, GONE, 'submitting', 'none'],
  ['and not when it is no longer wanted', SUBMITTING, true, GONE, 'finished', 'none'],
  ['a queued job that Slurm forgot is handed over again', QUEUED, false, GONE, 'submitting', 'submit'],
  ['a job that was found is queued', SUBMITTING, false, WAITS, 'queued', 'none'],
  ['an unwanted job that was found is cancelled', SUBMITTING, true, WAITS, 'queued', 'cancel'],
  ['a waiting job waits', QUEUED, false, WAITS, 'queued', 'none'],
  ['the wish to cancel is repeated', QUEUED, true, WAITS, 'queued', 'cancel'],
  ['and for a running job too', RUNNING, true, RUNS, 'running', 'cancel'],
  ['a job starts', QUEUED, false, RUNS, 'running', 'none'],
  ['a job starts before we knew that it was queued', SUBMITTING, false, RUNS, 'running', 'none'],
  ['a running job does not wait again because of an old answer', RUNNING, false, WAITS, 'running', 'none'],
  ['an ended job is collected', RUNNING, false, ENDED, 'collecting', 'collect'],
  ['also when nobody saw it run', SUBMITTING, false, ENDED, 'collecting', 'collect'],
  ['collecting goes on after a crash', COLLECTING, false, null, 'collecting', 'collect'],
  ['a finished job stays as it is', FINISHED, true, GONE, 'finished', 'none'],
];

for (const [what, state, wished, seen, phase, action] of TABLE) {
  test(`${what}`, () => {
    const job: TrackedJob = { id: 7, cancelRequestedAt: wished ? 1 : null, state };
    const step = nextStep(job, seen, moment);
    assert.deepEqual([step.state.phase, step.action], [phase, action]);
    // Nothing is written where nothing changed.
    if (step.state.phase === state.phase && action !== 'submit') assert.equal(step.state, state);
  });
}

const endOf = (state: JobState, wished: boolean, seen: Observation) => {
  const step = nextStep({ id: 7, cancelRequestedAt: wished ? 1 : null, state }, seen, moment);
  assert.ok(step.state.phase === 'collecting');
  return [step.state.outcome.status, step.state.outcome.reason];
};

test('CANCELLED that was wished is CANCELLED, in whatever life', () => {
  assert.deepEqual(endOf(RUNNING, true, CANCELLED), ['CANCELLED', 'cancelled on request']);
  assert.deepEqual(endOf(BEFORE, true, CANCELLED), ['CANCELLED', 'cancelled on request']);
});

test('CANCELLED that nobody wished in a job of an earlier life means that the appliance was stopped', () => {
  assert.deepEqual(endOf(BEFORE, false, CANCELLED), ['NODE_FAIL', 'the appliance was stopped while the job ran']);
  assert.deepEqual(endOf(RUNNING, false, CANCELLED), ['CANCELLED', 'r']);
});

test('a job that goes on running in a new life belongs to the new one', () => {
  const { state } = nextStep({ id: 7, cancelRequestedAt: null, state: BEFORE }, RUNS, moment);
  assert.equal(state.phase === 'running' && state.generation, 'G2');
});

test('outputs that could not be indexed are noted beside the reason, not instead of it', () => {
  assert.ok(COLLECTING.phase === 'collecting');
  const state = collected(COLLECTING, 'no outputs');
  assert.deepEqual(state.phase === 'finished' && state.outcome, { ...outcome('COMPLETED'), reason: 'r; no outputs' });
});

test("the status is Slurm's word, and SUBMITTED before Slurm has the job", () => {
  const words = [PENDING, SUBMITTING, QUEUED, RUNNING, COLLECTING, FINISHED].map(statusOf);
  assert.deepEqual(words, ['SUBMITTED', 'SUBMITTED', 'PENDING', 'RUNNING', 'COMPLETING', 'COMPLETED']);
});

test('a job that was to be cancelled is CANCELLED, also when only its script could tell how it ended', () => {
  const byItself: Outcome = { status: 'FAILED', exitCode: 7, signal: null, reason: 'exit code 7' };
  const byTerm: Outcome = { status: 'FAILED', exitCode: 143, signal: null, reason: 'exit code 143' };
  const statuses = [byItself, byTerm, outcome('NODE_FAIL'), outcome('LOST'), outcome('COMPLETED')].map((each) => {
    const job: TrackedJob = { id: 1, cancelRequestedAt: now - 5, state: RUNNING };
    const { state } = nextStep(job, { kind: 'ended', ...ended, outcome: each }, moment);
    return state.phase === 'collecting' ? state.outcome.status : state.phase;
  });
  assert.deepEqual(statuses, ['FAILED', 'CANCELLED', 'CANCELLED', 'CANCELLED', 'COMPLETED']);
});
