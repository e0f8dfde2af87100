import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { newRoot, type RunningAppliance, startAppliance, waitUntil } from '../house/appliance.ts';
import { uploadBytes } from '../house/client.ts';

/**
 * What bare Slurm cannot: jobs are submitted while everything is killed at random, and in the middle Slurm loses its memory. How many
 * jobs: JR_TEST_CRASH_JOBS.
 */
const JOBS = Number(process.env.JR_TEST_CRASH_JOBS ?? 60);
/** One death for so many jobs: 5 to 40 in all. */
const JOBS_A_DEATH = Math.max(12, Math.ceil(JOBS / 40));
const SLOTS = 6;

let appliance: RunningAppliance;
let dataset: string;

before(async () => {
  const root = newRoot();
  const folder = join(root, 'templates', 'tally');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'template.yaml'), 'title: Counts its runs\nparams: { type: object }\n');
  writeFileSync(
    join(folder, 'run.sh'),
    'echo "$JR_JOB_ID $JR_PARAMS" | tee -a "$RESULT_DIR/runs"\nsleep "0.$((RANDOM % 5))"\n',
  );
  appliance = await startAppliance({ root, env: { JR_NUM_CPUS: String(SLOTS), JR_REAL_MEM_MB: String(SLOTS * 1024) } });
  dataset = await uploadBytes(appliance, 'a.txt', Buffer.from('a'));
});
after(() => appliance?.remove());

interface Acknowledged {
  readonly id: number;
  readonly mark: string;
}

/** Asks again until it is acknowledged; a try without an answer may have made a job too, by another mark. */
async function submit(): Promise<Acknowledged> {
  for (const since = Date.now(); ; ) {
    if (Date.now() - since > 120_000) throw new Error('nothing was acknowledged in two minutes');
    const mark = randomUUID();
    try {
      const response = await appliance.call('/jobs', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({
          dataset_sha: dataset,
          command_key: 'tally',
          params_json: { mark },
          gpus: 0,
          cpus: 1,
          mem_gb: 1,
        }),
        signal: AbortSignal.timeout(15_000),
      });
      const body = (await response.json()) as { job_id: number };
      if (response.status === 200) return { id: body.job_id, mark };
      assert.equal(response.status, 503, JSON.stringify(body));
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
    }
    await delay(50);
  }
}

type Victim = 'api' | 'slurmctld' | 'slurmd' | 'munged';
const DEATHS: readonly (readonly Victim[])[] = [
  ['api'],
  ['slurmctld'],
  ['slurmd'],
  ['api', 'slurmctld'],
  ['api', 'slurmctld', 'slurmd', 'munged'],
];

/** All daemons and the API take jobs; what it shows instead goes into the message. */
async function isUp(): Promise<void> {
  let health = '';
  await waitUntil('all is up again', 60_000, async () => {
    const response = await fetch(`${appliance.baseUrl}/health`, { signal: AbortSignal.timeout(2000) }).catch(
      () => null,
    );
    health = response === null ? 'no answer' : await response.text();
    return response?.status === 200;
  }).catch((error: Error) => {
    throw new Error(`${error.message}: ${health}\n${appliance.output().slice(-3000)}`);
  });
}

async function strike(death: readonly Victim[], beforeRestart: () => void = () => {}): Promise<void> {
  await isUp();
  await delay(Math.random() * 1000);
  for (const name of death) {
    const pid = appliance.daemonPid(name);
    if (pid === null) continue;
    // The API goes with its parent.
    const child = name === 'api' ? Number(readOr(`/proc/${pid}/task/${pid}/children`).split(' ')[0]) : 0;
    for (const each of [pid, child]) if (each > 0) kill(each);
  }
  beforeRestart();
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // Gone already.
  }
}

function readOr(path: string): string {
  return existsSync(path) ? readFileSync(path, 'utf8') : '';
}

/** The folder stays: slurmctld may not make it. */
function wipeSlurmState(): void {
  const state = join(appliance.root, 'slurm', 'state');
  for (const name of readdirSync(state)) rmSync(join(state, name), { recursive: true, force: true });
}

interface View {
  readonly status: string;
  readonly done: boolean;
  readonly meta: { readonly reason: string | null };
}

async function view(id: number): Promise<View> {
  return (await (await appliance.call(`/jobs/${id}`)).json()) as View;
}

test(`${JOBS} jobs, everything killed at random, Slurm's memory wiped once: each ran once or says why that is not known`, async (t) => {
  const acknowledged: Acknowledged[] = [];
  let killing = true;
  const killer = (async () => {
    for (let n = 0; killing; n++) {
      const death = DEATHS[n % DEATHS.length] ?? [];
      const due = (n + 1) * JOBS_A_DEATH;
      await waitUntil('it is time to die', 600_000, () => !killing || acknowledged.length >= due);
      if (!killing) return;
      const wipe = n === Math.floor(JOBS / JOBS_A_DEATH / 2);
      await strike(wipe ? ['slurmctld'] : death, wipe ? wipeSlurmState : undefined);
    }
  })();
  const submitter = async () => {
    while (killing && acknowledged.length < JOBS) acknowledged.push(await submit());
  };
  const stop = () => {
    killing = false;
  };
  await Promise.all([killer.finally(stop), Promise.all([submitter(), submitter()]).finally(stop)]);
  await isUp();

  const ends = new Map<number, View>();
  await waitUntil('all jobs have ended', 60_000 + JOBS * 1000, async () => {
    for (const { id } of acknowledged) {
      if (ends.has(id)) continue;
      const seen = await view(id);
      if (seen.done) ends.set(id, seen);
      else return false;
    }
    return true;
  }).catch(async (error: Error) => {
    const late = await Promise.all(acknowledged.filter(({ id }) => !ends.has(id)).map(({ id }) => view(id)));
    throw new Error(`${error.message}: ${JSON.stringify(late.slice(0, 5))}\n${appliance.output().slice(-4000)}`);
  });

  assert.equal(new Set(acknowledged.map(({ id }) => id)).size, acknowledged.length, 'no id twice');
  const tally = new Map<string, number>();
  for (const { id, mark } of acknowledged) {
    const end = ends.get(id);
    const runs = readOr(join(appliance.root, 'results', String(id), 'runs'))
      .split('\n')
      .filter(Boolean);
    assert.ok(runs.length <= 1, `job ${id} ran ${runs.length} times`);
    for (const run of runs) assert.equal(run, `${id} {"mark":"${mark}"}`, 'the output of another job');
    if (end?.status === 'COMPLETED') assert.equal(runs.length, 1, `job ${id} is COMPLETED and did not run`);
    else assert.ok(end?.meta.reason, `job ${id} is ${end?.status} without a reason`);
    const log = await (await appliance.call(`/jobs/${id}/log`)).text();
    const marks = log.match(/"mark":"[^"]*"/g) ?? [];
    assert.deepEqual(marks, runs.length === 1 ? [`"mark":"${mark}"`] : [], `the log of job ${id}`);
    const word = end?.status === 'COMPLETED' ? 'COMPLETED' : `${end?.status}: ${end?.meta.reason}`;
    tally.set(word, (tally.get(word) ?? 0) + 1);
  }
  for (const [word, count] of tally) t.diagnostic(`${count} × ${word}`);
  t.diagnostic(
    `${Math.max(...acknowledged.map(({ id }) => id)) - acknowledged.length} jobs were made by tries without an answer`,
  );
});
