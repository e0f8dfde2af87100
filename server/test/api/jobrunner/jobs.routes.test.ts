import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import request from 'supertest';
import { AppError } from '../../../core/errors.ts';
import type { Executor, Observation, TrackedJob } from '../../../core/executor.ts';
import type { JobId } from '../../../core/job.ts';
import { type Paths, pathsIn } from '../../../storage/paths.ts';
import { DATASET, makeTemplates, NODE, type Queue, startQueue, TOKEN } from '../../house/queue.ts';
import { until } from '../../house/slurm.ts';

/** The calls over HTTP, with real SQLite and a scheduler that does as the tests say. */
const root = mkdtempSync(join(tmpdir(), 'jr-jobs-routes-'));
chmodSync(root, 0o755);
const paths: Paths = pathsIn(root);
const observations = new Map<JobId, Observation>();
const submitted: JobId[] = [];
let submitting: (id: JobId) => Promise<string> = async (id) => String(id + 100);
let queue: Queue;

const executor: Executor = {
  submit(job) {
    submitted.push(job.id);
    return submitting(job.id);
  },
  async observe(jobs: readonly TrackedJob[]) {
    return new Map(jobs.map(({ id }) => [id, observations.get(id) ?? { kind: 'unclear', why: 'not said' }]));
  },
  async cancel() {},
  async release() {},
  watch: () => new Promise(() => {}),
  glance: () => new Map(),
  forget() {},
};

before(() => {
  for (const folder of [paths.logs, paths.jobs, paths.templates, paths.datasets])
    mkdirSync(folder, { recursive: true });
  queue = startQueue({
    paths,
    executor,
    templates: makeTemplates(paths, { echo: 'true' }),
    node: { ...NODE, gpus: [{ index: 0, file: '/dev/x', uuid: null, name: null }] },
  });
});
after(async () => {
  await queue.stop();
  rmSync(root, { recursive: true });
});

const auth = { Authorization: `Bearer ${TOKEN}` };
const post = (path: string) => request(queue.app).post(path).set(auth);
const get = (path: string) => request(queue.app).get(path).set(auth);
const GOOD = { dataset_sha: DATASET, command_key: 'echo' };

async function accepted(over: Record<string, unknown> = {}): Promise<JobId> {
  const { body, status } = await post('/jobs').send({ ...GOOD, ...over });
  assert.equal(status, 200, JSON.stringify(body));
  return body.job_id as JobId;
}

test('a form, an urlencoded and a JSON body mean the same', async () => {
  const fields = { ...GOOD, gpus: '0', cpus: '2', mem_gb: '1', time_limit: '10', params_json: '{"a":1}' };
  const form = post('/jobs');
  for (const [name, value] of Object.entries(fields)) form.field(name, value);
  const answers = [
    await form,
    await post('/jobs').type('form').send(fields),
    await post('/jobs').send({ ...GOOD, gpus: 0, cpus: 2, mem_gb: 1, time_limit: 10, params_json: { a: 1 } }),
  ];
  for (const { status, text, body } of answers) {
    assert.equal(status, 200, text);
    assert.match(text, /^\{"job_id":\d+,"status":"SUBMITTED"\}$/);
    const spec = queue.store.get(body.job_id)?.spec;
    assert.deepEqual(spec?.resources, { gpus: 0, cpus: 2, memoryMiB: 1024, timeLimitSeconds: 600 });
    assert.deepEqual(spec?.params, { a: 1 });
  }
});

test("what is not asked for is the original's default, lowered to what the node has", async () => {
  const id = await accepted();
  assert.deepEqual(queue.store.get(id)?.spec.resources, {
    gpus: 1,
    cpus: 4,
    memoryMiB: 8000,
    timeLimitSeconds: 14_400,
  });
});

test("the experiment is the parameter experimentId's, else the job's own", async () => {
  const named = await accepted({ params_json: { experimentId: 'mine' } });
  const unnamed = await accepted();
  assert.equal((await get(`/jobs/${named}`)).body.meta.experiment_id, 'mine');
  assert.equal((await get(`/jobs/${unnamed}`)).body.meta.experiment_id, `job-${unnamed}`);
});

const BAD: readonly (readonly [field: string, value: unknown])[] = [
  ['dataset_sha', 'abc'],
  ['dataset_sha', undefined],
  ['command_key', 'nope'],
  ['command_key', ''],
  ['gpus', -1],
  ['gpus', '1.5'],
  ['gpus', '1;id'],
  ['cpus', 0],
  ['cpus', 'NaN'],
  ['mem_gb', '0'],
  ['mem_gb', 1e30],
  ['time_limit', '1:2:3:4'],
  ['time_limit', '10\n#SBATCH --uid=0'],
  ['time_limit', '0'],
  ['time_limit', 'UNLIMITED'],
  ['params_json', '[1]'],
  ['params_json', '{'],
  ['params_json', 'null'],
  ['params_json', `{"a":"${'x'.repeat(130_000)}"}`],
  ['params_json', '{"seed": 12345678901234567890}'],
  ['params_json', '{"forbidden": 1}'],
  ['gpu', '4'],
];

for (const [field, value] of BAD) {
  test(`${field} = ${JSON.stringify(value)?.slice(0, 40)} is refused with 400 that names the field, and Slurm hears nothing`, async () => {
    const before = submitted.length;
    const { status, body } = await post('/jobs').send({ ...GOOD, [field]: value });
    assert.equal(status, 400, JSON.stringify(body));
    assert.ok(body.detail.includes(field), body.detail);
    assert.ok((body.errors as { field: string }[]).some((each) => each.field.startsWith(field)));
    assert.equal(submitted.length, before);
  });
}

test('a large number in a text is a text', async () => {
  await accepted({ params_json: '{"id": "12345678901234567890", "x": 1.5e300}' });
});

test('what this node can never give is refused with 422: what was asked and what there is', async () => {
  const cases = { gpus: [2, 1], cpus: [5, 4], mem_gb: [9, 7.81], time_limit: ['2-00:00:00', '1-00:00:00'] } as const;
  for (const [field, [asked, available]] of Object.entries(cases)) {
    const { status, body } = await post('/jobs').send({ ...GOOD, [field]: asked });
    assert.deepEqual([status, body.code], [422, 'impossible']);
    assert.ok(body.detail.includes(`${field}: asked ${asked}, available ${available}`), body.detail);
  }
});

test('a dataset that is not here is 404 and named', async () => {
  const { status, body } = await post('/jobs').send({ ...GOOD, dataset_sha: 'b'.repeat(64) });
  assert.deepEqual([status, body.code, body.errors[0].field], [404, 'not_found', 'dataset_sha']);
});

test("Slurm's refusal is told at once, in its words", async () => {
  submitting = async () => {
    throw new AppError('refused_by_scheduler', 'Slurm refused the job: no');
  };
  const { status, body } = await post('/jobs').send(GOOD);
  submitting = async (id) => String(id + 100);
  assert.deepEqual([status, body.code], [422, 'refused_by_scheduler']);
  assert.match(body.detail, /Slurm refused the job: no/);
  const id = Number(/job (\d+)/.exec(body.detail)?.[1]);
  assert.deepEqual([(await get(`/jobs/${id}`)).body.status, (await get(`/jobs/${id}`)).body.done], ['REFUSED', true]);
});

test('without Slurm a job is accepted all the same, and handed over when Slurm is back', async () => {
  submitting = async () => {
    throw new AppError('unavailable', 'no controller');
  };
  const id = await accepted();
  const { body } = await get(`/jobs/${id}`);
  assert.deepEqual([body.status, body.done], ['SUBMITTED', false]);
  assert.match(body.meta.reason, /no controller/);
  submitting = async (each) => String(each + 100);
  observations.set(id, { kind: 'gone' });
  await until('it to be handed over', () => queue.store.get(id)?.state.phase === 'queued');
});

test('a job is shown as the reference reads it: compact, one status, done, meta', async () => {
  const id = await accepted({ params_json: { status: 'x"status":"y"' } });
  observations.set(id, {
    kind: 'queued',
    externalId: '9',
    reason: 'say "status":"z"',
    estimatedStart: 1e12,
    position: 4,
  });
  await until('it to wait', () => queue.reconciler.glimpse(id).queuePosition === 4);
  const { text, body } = await get(`/jobs/${id}`);
  assert.match(text, new RegExp(`^\\{"job_id":${id},"status":"PENDING","done":false,"meta":\\{`));
  assert.deepEqual(text.match(/"status":"[^"]*"/g), ['"status":"PENDING"']);
  assert.deepEqual([body.meta.slurm_id, body.meta.queue_position], ['9', 4]);
  assert.equal(body.meta.estimated_start_at, new Date(1e12).toISOString());
});

test('an ended job has its exit code, reason and times, and can no longer be cancelled', async () => {
  const id = await accepted();
  const outcome = { status: 'FAILED', exitCode: 3, signal: null, reason: 'exit code 3' } as const;
  observations.set(id, { kind: 'ended', externalId: '9', startedAt: 1e12, endedAt: 1e12 + 1, gpuIds: ['0'], outcome });
  await queue.finished(id);
  const { body } = await get(`/jobs/${id}`);
  assert.deepEqual([body.status, body.done], ['FAILED', true]);
  const { exit_code, reason, started_at, gpu_ids } = body.meta;
  assert.deepEqual([exit_code, reason, started_at, gpu_ids], [3, 'exit code 3', new Date(1e12).toISOString(), ['0']]);
  const cancel = await post(`/jobs/${id}/cancel`);
  assert.deepEqual([cancel.status, cancel.body.code], [409, 'conflict']);
});

test('a wish to cancel is noted and answered at once, as often as one likes', async () => {
  const id = await accepted();
  for (let i = 0; i < 2; i++) {
    const { status, text } = await post(`/jobs/${id}/cancel`);
    assert.equal(status, 200);
    assert.equal(text, `{"job_id":${id},"status":"CANCELLED_REQUESTED"}`);
  }
  assert.notEqual((await get(`/jobs/${id}`)).body.meta.cancel_requested_at, null);
});

test('unknown jobs are 404 on every call, and ids that are none 400', async () => {
  for (const path of ['/jobs/99999', '/jobs/99999/log', '/jobs/99999/script'])
    assert.equal((await get(path)).status, 404);
  assert.equal((await post('/jobs/99999/cancel')).status, 404);
  for (const id of ['0', '-1', 'x', '1.5', '1e3', '9'.repeat(30)])
    assert.equal((await get(`/jobs/${id}`)).status, 400, id);
});

test('the log is empty before there is one, then grows; ranges are served', async () => {
  const id = await accepted();
  const none = await get(`/jobs/${id}/log`);
  assert.deepEqual([none.status, none.text, none.headers['content-type']], [200, '', 'text/plain; charset=utf-8']);
  writeFileSync(paths.log(id), '0123456789');
  assert.equal((await get(`/jobs/${id}/log`)).text, '0123456789');
  const part = await get(`/jobs/${id}/log`).set('Range', 'bytes=2-4');
  assert.deepEqual([part.status, part.text, part.headers['content-range']], [206, '234', 'bytes 2-4/10']);
  const tail = await get(`/jobs/${id}/log`).set('Range', 'bytes=-3');
  assert.deepEqual([tail.status, tail.text], [206, '789']);
  const beyond = await get(`/jobs/${id}/log`).set('Range', 'bytes=10-');
  assert.deepEqual([beyond.status, beyond.headers['content-range']], [416, 'bytes */10']);
  assert.match(beyond.headers['content-type'] ?? '', /problem\+json/);
});

test('a link in the place of a log is not followed', async () => {
  const id = await accepted();
  symlinkSync('/etc/passwd', paths.log(id));
  const { status, text } = await get(`/jobs/${id}/log`);
  assert.equal(status, 403);
  assert.ok(!text.includes('root:'));
});

test('the script is shown once there is one', async () => {
  const id = await accepted();
  assert.equal((await get(`/jobs/${id}/script`)).status, 404);
  mkdirSync(paths.jobFolder(id));
  writeFileSync(paths.jobScript(id), '#!/bin/bash\n');
  const { status, text } = await get(`/jobs/${id}/script`);
  assert.deepEqual([status, text], [200, '#!/bin/bash\n']);
});

test('the list goes from the newest to the oldest, page by page, to the end', async () => {
  const ids: number[] = [];
  for (let before: number | null = null, pages = 0; pages < 50; pages++) {
    const { body, status } = await get(`/jobs?limit=7${before === null ? '' : `&before=${before}`}`);
    assert.equal(status, 200);
    ids.push(...body.jobs.map((job: { job_id: number }) => job.job_id));
    before = body.next_before;
    if (before === null) break;
  }
  assert.deepEqual(
    ids,
    Array.from({ length: ids.length }, (_, i) => ids.length - i),
  );
  assert.equal((await get('/jobs?limit=201')).status, 400);
});
