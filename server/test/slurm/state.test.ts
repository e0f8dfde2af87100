import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { QueueRow } from '../../slurm/commands.ts';
import type { CompletionRecord } from '../../slurm/job-completion.ts';
import { type Evidence, judge, leftOver, NOTICE_MS } from '../../slurm/state.ts';
import type { Claim } from '../../slurm/witness.ts';

const now = 1_795_191_400_000;
const claim: Claim = { slurmId: '5', pid: 1, startTicks: 2, boot: 'b', at: now - 60_000, gpuIds: ['0'] };
const row = (over: Partial<QueueRow> = {}): QueueRow => ({
  slurmId: '5',
  jobId: 7,
  state: 'PENDING',
  waitStatus: 0,
  priority: 1,
  startTime: null,
  endTime: null,
  reason: 'Priority',
  ...over,
});
const record = (over: Partial<CompletionRecord> = {}): CompletionRecord => ({
  slurmId: '5',
  jobId: 7,
  state: 'COMPLETED',
  placed: true,
  exitCode: 0,
  signal: 0,
  submitTime: now - 90_000,
  startTime: now - 60_000,
  endTime: now - 10_000,
  ...over,
});
const NOTHING: Evidence = {
  externalId: '5',
  cancelWished: false,
  submittingSince: null,
  rows: [],
  records: [],
  witness: { claim: null, ended: null },
  alive: null,
  deadSince: null,
  earlierLife: false,
  position: () => 3,
  now,
};
const seen = (over: Partial<Evidence>) => judge({ ...NOTHING, ...over }).observation;
const claimed = { claim, ended: null };
const endOf = (over: Partial<Evidence>) => {
  const observation = seen(over);
  assert.ok(observation.kind === 'ended', JSON.stringify(observation));
  return observation.outcome;
};

test('gone is said only when Slurm answered, does not know it, and nothing shows that it started', () => {
  assert.equal(seen({}).kind, 'gone');
  assert.equal(seen({ rows: null }).kind, 'unclear');
  assert.notEqual(seen({ witness: claimed, alive: true }).kind, 'gone');
  assert.notEqual(seen({ witness: { claim: 'unreadable', ended: null } }).kind, 'gone');
  assert.notEqual(seen({ records: [record()] }).kind, 'gone');
});

test('a waiting job has its reason and its place; a placed one that has not claimed is starting', () => {
  assert.deepEqual(seen({ rows: [row()] }), {
    kind: 'queued',
    externalId: '5',
    reason: 'Priority',
    estimatedStart: null,
    position: 3,
  });
  const starting = seen({ rows: [row({ state: 'RUNNING' })] });
  assert.ok(starting.kind === 'queued');
  assert.deepEqual([starting.reason, starting.position], ['Starting', null]);
});

test('a job whose process is there runs, whether Slurm was asked, knows it or has forgotten it', () => {
  for (const rows of [null, [], [row({ state: 'RUNNING' })]]) {
    assert.deepEqual(seen({ rows, witness: claimed, alive: true }), {
      kind: 'running',
      externalId: '5',
      startedAt: claim.at,
      gpuIds: ['0'],
    });
  }
});

test("Slurm's record tells the end, with the times of the witnesses", () => {
  const observation = seen({
    rows: null,
    witness: { claim, ended: { exitCode: 0, at: now - 9500 } },
    alive: false,
    records: [record()],
  });
  assert.ok(observation.kind === 'ended');
  assert.deepEqual(
    [observation.startedAt, observation.endedAt, observation.outcome.status],
    [claim.at, now - 9500, 'COMPLETED'],
  );
});

test('each end that Slurm knows is told with a reason', () => {
  const with_ = (over: Partial<CompletionRecord>) => endOf({ witness: claimed, alive: false, records: [record(over)] });
  assert.deepEqual(with_({ state: 'FAILED', exitCode: 3 }), {
    status: 'FAILED',
    exitCode: 3,
    signal: null,
    reason: 'exit code 3',
  });
  assert.match(with_({ state: 'FAILED', exitCode: 137 }).reason, /killed by signal 9/);
  assert.match(with_({ state: 'TIMEOUT' }).reason, /time limit/);
  assert.match(with_({ state: 'OUT_OF_MEMORY' }).reason, /memory/);
  assert.equal(with_({ state: 'CANCELLED' }).status, 'CANCELLED');
  assert.equal(with_({ state: 'NEW_WORD' }).status, 'FAILED');
});

test('a record that comes while processes are still ending does not end the job yet, but does not wait for ever', () => {
  const cancelled = record({ state: 'CANCELLED' });
  assert.equal(seen({ witness: claimed, alive: true, records: [cancelled] }).kind, 'running');
  const old = record({ state: 'CANCELLED', endTime: now - 600_000 });
  assert.equal(seen({ witness: claimed, alive: true, records: [old] }).kind, 'ended');
});

test('a record of another Slurm job by the same name is not taken for it', () => {
  const other = record({ slurmId: '4', state: 'CANCELLED', placed: false });
  assert.equal(seen({ records: [other] }).kind, 'gone');
  assert.equal(seen({ witness: claimed, alive: true, records: [other] }).kind, 'running');
});

test('without a known number only a record of this try counts', () => {
  const submitting = { externalId: null, submittingSince: now - 20_000 };
  assert.equal(
    seen({ ...submitting, records: [record({ submitTime: now - 90_000, state: 'CANCELLED', placed: false })] }).kind,
    'gone',
  );
  assert.equal(
    seen({ ...submitting, records: [record({ submitTime: now - 20_000, state: 'CANCELLED', placed: false })] }).kind,
    'ended',
  );
});

test('dead, and Slurm still thinks that it runs: patience first, then NODE_FAIL and the Slurm job must go', () => {
  const rows = [row({ state: 'RUNNING' })];
  const dead = { rows, witness: claimed, alive: false };
  assert.equal(seen({ ...dead, deadSince: now - 100 }).kind, 'unclear');
  const { observation, surplus } = judge({ ...NOTHING, ...dead, deadSince: now - NOTICE_MS });
  assert.ok(observation.kind === 'ended');
  assert.equal(observation.outcome.status, 'NODE_FAIL');
  assert.deepEqual(surplus, ['5']);
});

test('dead since an earlier life of the appliance: NODE_FAIL at once', () => {
  const outcome = endOf({
    rows: [row({ state: 'RUNNING' })],
    witness: claimed,
    alive: false,
    deadSince: now,
    earlierLife: true,
  });
  assert.deepEqual([outcome.status, outcome.reason], ['NODE_FAIL', 'the appliance was stopped while the job ran']);
});

test('its own note of the end counts where Slurm has forgotten it', () => {
  const witness = { claim, ended: { exitCode: 4, at: now - 1000 } };
  assert.deepEqual([endOf({ witness, alive: false }).status, endOf({ witness, alive: false }).exitCode], ['FAILED', 4]);
});

test('an end that Slurm made up after the script had come to its own does not count', () => {
  const witness = { claim, ended: { exitCode: 0, at: now - 30_000 } };
  for (const over of [{ state: 'FAILED', signal: 1 }, { state: 'CANCELLED' }, { state: 'NODE_FAIL', exitCode: 1 }]) {
    assert.equal(endOf({ witness, alive: false, records: [record(over)] }).status, 'COMPLETED', over.state);
  }
  const stopped = { claim, ended: { exitCode: 0, at: now - 9500 } };
  assert.equal(
    endOf({ witness: stopped, alive: false, records: [record({ state: 'CANCELLED' })] }).status,
    'CANCELLED',
  );
  assert.equal(endOf({ witness, alive: false, records: [record({ state: 'TIMEOUT' })] }).status, 'TIMEOUT');
});

test('of several records of one Slurm job the first counts', () => {
  const records = [record(), record({ state: 'CANCELLED' })];
  assert.equal(endOf({ witness: claimed, alive: false, records }).status, 'COMPLETED');
});

test('a launch that Slurm spoilt is made again a few times, and then told', () => {
  const spoilt = [
    record({ state: 'NODE_FAIL' }),
    record({ state: 'CANCELLED' }),
    record({ state: 'FAILED', placed: false, exitCode: 0, signal: 1 }),
  ];
  for (const each of spoilt) {
    assert.equal(seen({ records: [each] }).kind, 'gone', each.state);
    assert.equal(seen({ records: [each], cancelWished: true }).kind, 'ended', each.state);
    assert.equal(seen({ records: [each, each, each, each, each] }).kind, 'ended', each.state);
  }
  assert.equal(seen({ records: [record({ state: 'CANCELLED', placed: false })] }).kind, 'ended');
  assert.equal(seen({ records: [record({ state: 'FAILED', exitCode: 74 })] }).kind, 'ended');
});

test('without a claim no command ran: an end without one is never COMPLETED', () => {
  assert.equal(endOf({ records: [record()] }).status, 'FAILED');
  assert.match(endOf({ records: [record({ state: 'FAILED', exitCode: 74 })] }).reason, /could not note its start/);
});

test('a claim without words, and nobody who knows more: LOST, and the reason says so', () => {
  const witness = { claim: 'unreadable' as const, ended: null };
  assert.equal(seen({ witness, deadSince: now }).kind, 'unclear');
  const outcome = endOf({ witness, deadSince: now - NOTICE_MS });
  assert.equal(outcome.status, 'LOST');
  assert.ok(outcome.reason.length > 20);
});

test('of two Slurm jobs by one name the one that claimed, or the known, or the oldest is the job; others that wait must go', () => {
  const two = [row({ slurmId: '9' }), row({ slurmId: '5' })];
  const known = judge({ ...NOTHING, rows: two });
  assert.deepEqual([known.observation.kind === 'queued' && known.observation.externalId, known.surplus], ['5', ['9']]);
  const unknown = judge({ ...NOTHING, externalId: null, rows: two });
  assert.deepEqual(unknown.surplus, ['9']);
  const other = judge({
    ...NOTHING,
    witness: { claim: { ...claim, slurmId: '9' }, ended: null },
    alive: true,
    rows: two,
  });
  assert.deepEqual([other.observation.kind === 'running' && other.observation.externalId, other.surplus], ['9', ['5']]);
});

test('of a job that has ended, what waits in Slurm goes, and what Slurm remembers as running from before a crash', () => {
  const bornAt = now;
  const before = row({ slurmId: '8', state: 'RUNNING', startTime: now - 9000 });
  const just = row({ slurmId: '9', state: 'RUNNING', startTime: now });
  assert.deepEqual(
    leftOver([row(), before, just], bornAt, () => false),
    ['5', '8'],
  );
  assert.deepEqual(
    leftOver([before], bornAt, () => true),
    [],
    'its processes are still ending',
  );
  assert.deepEqual(
    leftOver([row({ state: 'COMPLETED', startTime: now - 9000 })], bornAt, () => false),
    [],
  );
});

test('the end of a second launch, which found the claim and left, says nothing of the job', () => {
  const second = record({ state: 'FAILED', exitCode: 75, endTime: now - 55_000 });
  const note = (exitCode: number) => ({ claim, ended: { exitCode, at: now - 10_000 } });
  assert.equal(seen({ witness: claimed, alive: true, records: [second] }).kind, 'running');
  assert.equal(endOf({ witness: note(0), alive: false, records: [second] }).status, 'COMPLETED');
  assert.equal(endOf({ witness: claimed, alive: false, records: [second] }).status, 'NODE_FAIL');
  const own = endOf({ witness: note(75), alive: false, records: [second] });
  assert.deepEqual([own.status, own.exitCode], ['FAILED', 75], 'its own code, when it says so');
});
