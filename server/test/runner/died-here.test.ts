import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import type { Job, JobState } from '../../core/job.ts';
import type { Templates } from '../../core/template.ts';
import { openDatabase } from '../../sqlite/database.ts';
import { createJobStore } from '../../sqlite/job-store.ts';
import { makeTemplates, type Queue, slurmExecutor, specOf, startQueue } from '../house/queue.ts';
import { type HouseSlurm, startSlurm, until } from '../house/slurm.ts';

/** Each test begins with what a crash in one phase leaves in the database and in Slurm, and starts a new process on it. */
let slurm: HouseSlurm;
let templates: Templates;
let queue: Queue | null = null;

before(async () => {
  slurm = await startSlurm();
  const started = 'echo start >> "$RESULT_DIR/starts"';
  templates = makeTemplates(slurm.context.paths, {
    quick: started,
    waits: `${started}; until [ -e "$RESULT_DIR/go" ]; do sleep 0.05; done`,
  });
});
after(() => slurm?.stop());
afterEach(async () => {
  await queue?.stop();
  queue = null;
});

function live(generation = 'life-1', collect?: (job: Job) => Promise<void>): Queue {
  queue = startQueue({
    paths: slurm.context.paths,
    executor: slurmExecutor(slurm, templates, undefined, generation),
    templates,
    generation,
    ...(collect === undefined ? {} : { collect }),
  });
  return queue;
}

async function die(): Promise<void> {
  await queue?.stop();
  queue = null;
}

/** A job in this state, with no process of ours alive. */
async function left(state: JobState, template = 'quick'): Promise<Job> {
  const db = openDatabase(slurm.context.paths.database);
  try {
    return createJobStore(db).insert(specOf(template), state, Date.now());
  } finally {
    db.close();
  }
}

function starts(id: number): number {
  const file = join(slurm.context.paths.result(id), 'starts');
  return existsSync(file) ? readFileSync(file, 'utf8').split('\n').length - 1 : 0;
}

function letGo(id: number): void {
  execFileSync('touch', [join(slurm.context.paths.result(id), 'go')]);
}

function hold(): void {
  execFileSync('scontrol', ['update', 'partitionname=main', 'state=down'], { env: slurm.environment });
}

function unhold(): void {
  execFileSync('scontrol', ['update', 'partitionname=main', 'state=up'], { env: slurm.environment });
}

const submitting = (since = Date.now()): JobState => ({ phase: 'submitting', since });

test('died while pending: the job is handed over and runs once', async () => {
  const job = await left({ phase: 'pending' });
  const end = await live().finished(job.id);
  assert.equal(end.state.phase === 'finished' && end.state.outcome.status, 'COMPLETED');
  assert.equal(starts(job.id), 1);
});

test('died before sbatch was run: the job is handed over and runs once', async () => {
  const job = await left(submitting());
  await live().finished(job.id);
  assert.equal(starts(job.id), 1);
});

test('died between sbatch and its record: the job is found again, never handed over twice', async () => {
  const job = await left(submitting(0), 'waits');
  const slurmId = await slurmExecutor(slurm, templates).submit(job);
  const { store, finished } = live();
  await until('it to be seen running', () => store.get(job.id)?.state.phase === 'running');
  letGo(job.id);
  const end = await finished(job.id);
  assert.equal(end.state.phase === 'finished' && end.state.externalId, slurmId);
  assert.equal(starts(job.id), 1);
});

test('died between sbatch and its record, and the job ended meanwhile: its end is found', async () => {
  const job = await left(submitting(Date.now() - 1500));
  await slurmExecutor(slurm, templates).submit(job);
  await until('it to have ended', () => existsSync(slurm.context.paths.witnessEnded(job.id)));
  const end = await live().finished(job.id);
  assert.equal(end.state.phase === 'finished' && end.state.outcome.status, 'COMPLETED');
  assert.equal(starts(job.id), 1);
});

test('two Slurm jobs for one job of ours: one runs, the other is cancelled', async () => {
  hold();
  const job = await left(submitting(0));
  try {
    await slurmExecutor(slurm, templates).submit(job);
    // What an sbatch that outlived its parent would add.
    const { paths } = slurm.context;
    execFileSync(
      'sbatch',
      [`--job-name=jr-${job.id}`, '--output=/dev/null', '--mem=10M', '--time=5', paths.jobScript(job.id)],
      { env: slurm.environment, uid: slurm.context.submitUser.uid, gid: slurm.context.submitUser.gid },
    );
    live();
    await until(
      'one of them to be gone',
      () => namesIn('PENDING').filter((name) => name === `jr-${job.id}`).length === 1,
    );
  } finally {
    unhold();
  }
  const end = await (queue as Queue | null)?.finished(job.id);
  assert.equal(end?.state.phase === 'finished' && end.state.outcome.status, 'COMPLETED');
  assert.equal(starts(job.id), 1);
});

function namesIn(state: string): string[] {
  const text = execFileSync('squeue', ['-h', '-o', '%j', '-t', state], { env: slurm.environment, encoding: 'utf8' });
  return text.split('\n').filter(Boolean);
}

test('a second Slurm job that starts although the first has claimed runs nothing and changes nothing', async () => {
  const { reconciler, finished, store } = live();
  const { id } = await finished(reconciler.accept(specOf('quick')).id);
  const before = JSON.stringify(store.get(id)?.state);
  const { paths, submitUser } = slurm.context;
  const again = ['--wait', `--job-name=jr-${id}`, '--output=/dev/null', '--mem=10M', '--time=5', paths.jobScript(id)];
  const { status } = spawnSync('sbatch', again, {
    env: slurm.environment,
    uid: submitUser.uid,
    gid: submitUser.gid,
    timeout: 30_000,
  });
  // Either it was cancelled as surplus while it waited, or it found the claim.
  assert.notEqual(status, 0);
  assert.equal(starts(id), 1);
  assert.equal(JSON.stringify(store.get(id)?.state), before);
});

test("died while queued, and Slurm's state is wiped: the job is handed over again and runs once", async () => {
  hold();
  const first = live();
  const job = first.reconciler.accept(specOf('quick'));
  await until('Slurm to have it', () => first.store.get(job.id)?.state.phase === 'queued');
  await die();
  await slurm.kill('slurmctld');
  slurm.wipeState();
  await slurm.start('slurmctld');
  const end = await live().finished(job.id);
  assert.equal(end.state.phase === 'finished' && end.state.outcome.status, 'COMPLETED');
  assert.equal(starts(job.id), 1);
});

test('died while running, and the job ended meanwhile: its end is found', async () => {
  const first = live();
  const job = first.reconciler.accept(specOf('waits'));
  await until('it to run', () => first.store.get(job.id)?.state.phase === 'running');
  await die();
  letGo(job.id);
  await until('it to have ended', () => existsSync(slurm.context.paths.witnessEnded(job.id)));
  const end = await live().finished(job.id);
  assert.equal(end.state.phase === 'finished' && end.state.outcome.status, 'COMPLETED');
});

test('the machine died while the job ran: NODE_FAIL in the next life, at once and with the reason', async () => {
  const first = live();
  const job = first.reconciler.accept(specOf('waits'));
  await until('it to run', () => first.store.get(job.id)?.state.phase === 'running');
  await die();
  for (const daemon of ['slurmctld', 'slurmd'] as const) await slurm.kill(daemon);
  killJob(job.id);
  for (const daemon of ['slurmctld', 'slurmd'] as const) await slurm.start(daemon);
  const end = await live('life-2').finished(job.id, 8000);
  assert.ok(end.state.phase === 'finished');
  assert.equal(end.state.outcome.status, 'NODE_FAIL');
  assert.match(end.state.outcome.reason, /appliance was stopped/);
  assert.equal(starts(job.id), 1);
});

/** As a power cut does: the script, its command and slurmstepd, without a word. */
function killJob(id: number): void {
  const pid = /^pid=(\d+)$/m.exec(readFileSync(slurm.context.paths.witnessStarted(id), 'utf8'))?.[1];
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const step = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1];
  const children = execFileSync('ps', ['-o', 'pid=', '--ppid', String(pid)], { encoding: 'utf8' })
    .trim()
    .split(/\s+/);
  for (const each of [step, pid, ...children]) if (each) process.kill(Number(each), 'SIGKILL');
}

test("Slurm's state is wiped under a running job: it is never started again, and its end is known", async () => {
  const first = live();
  const job = first.reconciler.accept(specOf('waits'));
  await until('it to run', () => first.store.get(job.id)?.state.phase === 'running');
  await slurm.kill('slurmctld');
  slurm.wipeState();
  await slurm.start('slurmctld');
  letGo(job.id);
  const end = await first.finished(job.id, 60_000);
  assert.ok(end.state.phase === 'finished');
  assert.ok(
    ['COMPLETED', 'NODE_FAIL', 'FAILED', 'CANCELLED'].includes(end.state.outcome.status),
    JSON.stringify(end.state),
  );
  assert.equal(starts(job.id), 1);
});

test('died while collecting: it is collected again', async () => {
  const tried: number[] = [];
  const first = live('life-1', async (job) => {
    tried.push(job.id);
    await new Promise<never>(() => {});
  });
  const job = first.reconciler.accept(specOf('quick'));
  await until('it to be collected', () => tried.includes(job.id));
  assert.equal(first.store.get(job.id)?.state.phase, 'collecting');
  await die();
  const again: number[] = [];
  await live('life-1', async ({ id }) => void again.push(id)).finished(job.id);
  assert.deepEqual(again, [job.id]);
});

test('a wish to cancel outlives us', async () => {
  const first = live();
  const job = first.reconciler.accept(specOf('waits'));
  await until('it to run', () => first.store.get(job.id)?.state.phase === 'running');
  await first.reconciler.stop();
  first.store.requestCancel(job.id, Date.now());
  first.db.close();
  const end = await live().finished(job.id);
  assert.ok(end.state.phase === 'finished');
  assert.deepEqual([end.state.outcome.status, end.state.outcome.reason], ['CANCELLED', 'cancelled on request']);
});

test('outputs that cannot be indexed do not keep a job from finishing: the reason is noted', async () => {
  let tries = 0;
  const { reconciler, finished } = live('life-1', async () => {
    tries++;
    throw new Error('no such luck');
  });
  const end = await finished(reconciler.accept(specOf('quick')).id, 40_000);
  assert.ok(end.state.phase === 'finished');
  assert.equal(end.state.outcome.status, 'COMPLETED');
  assert.match(end.state.outcome.reason, /no such luck/);
  assert.equal(tries, 6);
});
