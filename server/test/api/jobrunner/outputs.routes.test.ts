import assert from 'node:assert/strict';
import { symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import pino from 'pino';
import request from 'supertest';
import { createApp } from '../../../api/app.ts';
import { outputRoutes } from '../../../api/jobrunner/outputs.routes.ts';
import { createOutputs } from '../../../runner/outputs.ts';
import { openDatabase } from '../../../sqlite/database.ts';
import { createOutputStore } from '../../../sqlite/output-store.ts';
import { makeResultRoot } from '../../fixtures/result-root.ts';

function setUp(t: TestContext) {
  const root = makeResultRoot(t);
  const db = openDatabase(join(root.root, 'jr_slurm.db'));
  t.after(() => db.close());
  const outputs = createOutputs({
    store: createOutputStore(db),
    results: root,
    jobOf: (id) => (id < 10 ? { id, experimentId: null } : null),
    now: () => 1_700_000_000_000,
  });
  const app = createApp({
    token: 't',
    version: '0',
    log: pino({ level: 'silent' }),
    routes: outputRoutes({ outputs }),
  });
  const get = (path: string) => request(app).get(path).set('Authorization', 'Bearer t');
  const post = (path: string) => request(app).post(path).set('Authorization', 'Bearer t');
  root.write(1, 'result.json', '{"ok": true}\n');
  root.write(1, 'weights/model.pth', 'WEIGHTS');
  const listed = [
    { id: 'summary', path: 'result.json' },
    { id: 'weights', path: 'weights/model.pth' },
  ];
  root.write(1, 'manifest.json', JSON.stringify({ experimentId: 'job-1', outputs: listed }));
  return { root, app, get, post };
}

test('the way of the reference: result, then the list, then the weights', async (t) => {
  const { get } = setUp(t);
  const result = await get('/jobs/1/result').expect(200);
  assert.equal(result.text, '{"ok": true}\n', 'as the job wrote it');
  assert.match(result.headers['content-type'] ?? '', /^application\/json/);
  const { body } = await get('/outputs/by_job/1').expect(200);
  assert.deepEqual([body.job_id, body.result_dir, body.next], [1, 'results/1', null]);
  assert.deepEqual(body.outputs[1], {
    experiment_id: 'job-1',
    output_id: 'weights',
    path: 'weights/model.pth',
    job_id: 1,
    bytes: 7,
    weights: true,
    created_at: '2023-11-14T22:13:20.000Z',
  });
  const weights = await get('/outputs/download?experiment_id=job-1&output_id=weights').expect(200);
  assert.equal(weights.body.toString(), 'WEIGHTS');
  assert.match(weights.headers['content-disposition'] ?? '', /filename="model.pth"/);
  const byPath = await get('/outputs/download_by_job?job_id=1&rel_path=weights/model.pth').expect(200);
  assert.equal(byPath.body.toString(), 'WEIGHTS');
  const range = await get('/outputs/download?experiment_id=job-1&output_id=weights')
    .set('Range', 'bytes=-3')
    .expect(206);
  assert.equal(range.body.toString(), 'HTS');
});

test('indexing answers with the experiment, the count and what was left out', async (t) => {
  const { get, post, root } = setUp(t);
  const { body } = await post('/outputs/index/1').expect(200);
  assert.deepEqual(body, { experiment_id: 'job-1', count: 2, skipped: [], skipped_count: 0 });
  root.write(2, 'a', 'x');
  symlinkSync('/etc/shadow', root.at(2, 'shadow'));
  const second = await post('/outputs/index/2').field('x', 'y').expect(200);
  assert.deepEqual(second.body.skipped, [{ path: 'shadow', reason: 'is a symbolic link' }]);
  const page = await get('/outputs?experiment_id=job-1&prefix=w').expect(200);
  assert.deepEqual(
    page.body.outputs.map((each: { output_id: string }) => each.output_id),
    ['weights'],
  );
  const first = await get('/outputs?experiment_id=job-1&limit=1').expect(200);
  assert.equal(first.body.next, 'summary');
  const rest = await get('/outputs?experiment_id=job-1&limit=1&after=summary').expect(200);
  assert.deepEqual([rest.body.outputs[0].output_id, rest.body.next], ['weights', null]);
});

test('what is not there is 404, what is hostile 403, what is malformed 400 with the field, and never more', async (t) => {
  const { get, post, root } = setUp(t);
  symlinkSync('/etc/shadow', root.at(1, 'shadow'));
  symlinkSync(join(root.root, 'jr_slurm.db'), root.at(3, 'result.json'));
  const byJob = (path: string) => `/outputs/download_by_job?job_id=1&rel_path=${path}`;
  for (const [path, status, field] of [
    ['/jobs/2/result', 404],
    ['/jobs/99/result', 404],
    ['/jobs/3/result', 403],
    ['/outputs/by_job/99', 404],
    ['/outputs/download?experiment_id=job-1&output_id=none', 404],
    ['/outputs/download?experiment_id=none&output_id=none', 404],
    [byJob('none'), 404],
    [byJob('shadow'), 403],
    [byJob('weights'), 403],
    [byJob(''), 400, 'rel_path'],
    [byJob('../../jr_slurm.db'), 400, 'rel_path'],
    [byJob('%2e%2e%2fjr_slurm.db'), 400, 'rel_path'],
    [byJob('/etc/shadow'), 400, 'rel_path'],
    [byJob('a%00b'), 400, 'rel_path'],
    [byJob('a'.repeat(5000)), 400, 'rel_path'],
    [byJob('a&rel_path=b'), 400, 'rel_path'],
    ['/outputs/download_by_job?rel_path=a', 400, 'job_id'],
    ['/outputs/download_by_job?job_id=1', 400, 'rel_path'],
    ['/outputs/download?output_id=a', 400, 'experiment_id'],
    ['/outputs/download?experiment_id=a', 400, 'output_id'],
    ['/outputs/download?experiment_id=&output_id=a', 400, 'experiment_id'],
    ['/outputs', 400, 'experiment_id'],
    ['/outputs?experiment_id=a&limit=0', 400, 'limit'],
    ['/outputs?experiment_id=a&limit=1001', 400, 'limit'],
    ['/outputs?experiment_id=a&limit=1e2', 400, 'limit'],
    ['/outputs?experiment_id=a&limit=NaN', 400, 'limit'],
    ['/outputs?experiment_id=a&offset=1', 400, 'offset'],
    ['/outputs/by_job/0', 400, 'job_id'],
    ['/outputs/by_job/-1', 400, 'job_id'],
    ['/outputs/by_job/1.5', 400, 'job_id'],
    ['/outputs/by_job/abc', 400, 'job_id'],
    ['/outputs/by_job/9007199254740993', 400, 'job_id'],
    ['/outputs/by_job/1;rm%20-rf', 400, 'job_id'],
    ['/jobs/$(id)/result', 400, 'id'],
  ] as const) {
    const answer = await get(path).buffer(true);
    assert.equal(answer.status, status, path.slice(0, 80));
    assert.match(answer.headers['content-type'] ?? '', /^application\/problem\+json/, path);
    const body = JSON.parse(answer.text);
    if (field !== undefined) assert.equal(body.errors[0].field, field, path);
    assert.ok(!answer.text.includes(root.root), `no path of the host: ${answer.text}`);
  }
  await post('/outputs/index/99').expect(404);
  await post('/outputs/index/x').expect(400);
});

test('a result that is no JSON is given as it was written, and no browser takes it for a page', async (t) => {
  const { get, root } = setUp(t);
  root.write(1, 'result.json', '<script>alert(1)</script>');
  const answer = await get('/jobs/1/result')
    .buffer(true)
    .parse((res, done) => {
      let text = '';
      res.on('data', (chunk) => {
        text += chunk;
      });
      res.on('end', () => done(null, text));
    });
  assert.equal(answer.body, '<script>alert(1)</script>');
  assert.match(answer.headers['content-security-policy'] ?? '', /sandbox/);
  assert.equal(answer.headers['x-content-type-options'], 'nosniff');
});
