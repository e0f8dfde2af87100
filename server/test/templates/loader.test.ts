import assert from 'node:assert/strict';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import pino from 'pino';
import request from 'supertest';
import { createApp } from '../../api/app.ts';
import { templateRoutes } from '../../api/jobrunner/templates.routes.ts';
import { AppError } from '../../core/errors.ts';
import { createTemplateLibrary } from '../../templates/loader.ts';

const BUILTIN = join(import.meta.dirname, '../../templates/builtin');

function setUp(t: TestContext) {
  const own = mkdtempSync(join(tmpdir(), 'jr-templates-'));
  t.after(() => rmSync(own, { recursive: true, force: true }));
  const templates = createTemplateLibrary({ builtin: BUILTIN, own });
  const write = (key: string, files: Readonly<Record<string, string>>) => {
    mkdirSync(join(own, key), { recursive: true });
    chmodSync(join(own, key), 0o755);
    for (const [name, content] of Object.entries(files)) writeFileSync(join(own, key, name), content, { mode: 0o644 });
  };
  const keys = () => templates.list().map(({ key }) => key);
  const faultOf = (key: string) => templates.broken().find((each) => each.key === key)?.fault;
  return { own, templates, write, keys, faultOf };
}

const GOOD = `
title: Mine
description: Does it
params:
  type: object
  required: [name]
  additionalProperties: false
  properties:
    name: { type: string, minLength: 2 }
    size: { type: integer, minimum: 1, maximum: 9 }
    kind: { enum: [a, b] }
resources: { gpus: 0, cpus: 2, mem_gb: 1.5, time_limit: "1-00:00:00" }
`;

test('the three built-in templates are there and whole', (t) => {
  const { templates, keys } = setUp(t);
  assert.deepEqual(keys(), ['echo_params', 'pytorch_example', 'pytorch_infer']);
  assert.deepEqual(templates.broken(), []);
  assert.equal(templates.get('echo_params')?.entry.interpreter, 'bash');
  assert.equal(templates.get('pytorch_example')?.entry.file, join(BUILTIN, 'pytorch_example', 'run.py'));
});

test('a folder that is dropped in works at once, and so does a change of it, and its removal', (t) => {
  const { own, templates, write, keys } = setUp(t);
  assert.equal(templates.get('mine'), null);
  write('mine', { 'template.yaml': GOOD, 'run.sh': 'true' });
  const mine = templates.get('mine');
  assert.deepEqual(
    [mine?.title, mine?.resources, mine?.entry],
    [
      'Mine',
      { gpus: 0, cpus: 2, memoryMiB: 1536, timeLimitSeconds: 86_400 },
      { file: join(own, 'mine', 'run.sh'), interpreter: 'bash' },
    ],
  );
  write('mine', { 'template.yaml': 'title: Yours' });
  assert.equal(templates.get('mine')?.title, 'Yours');
  rmSync(join(own, 'mine', 'run.sh'));
  write('mine', { 'run.py': 'pass' });
  assert.equal(templates.get('mine')?.entry.interpreter, 'python3');
  assert.ok(keys().includes('mine'));
  rmSync(join(own, 'mine'), { recursive: true });
  assert.equal(templates.get('mine'), null);
  rmSync(own, { recursive: true });
  assert.equal(keys().length, 3, 'a missing folder is an empty one');
});

test('parameters are checked by the schema, and every fault names its field', (t) => {
  const { templates, write } = setUp(t);
  write('mine', { 'template.yaml': GOOD, 'run.sh': 'true' });
  const mine = templates.get('mine');
  assert.deepEqual(mine?.validate({ name: 'ab', size: 3, kind: 'a' }), []);
  assert.deepEqual(mine?.validate({ size: 10, kind: 'c', x: 1 }), [
    { field: 'params_json.name', message: 'must be given' },
    { field: 'params_json.x', message: 'is not a parameter of this template' },
    { field: 'params_json.size', message: 'must be <= 9' },
    { field: 'params_json.kind', message: 'must be one of ["a","b"]' },
  ]);
});

test('a broken template is told with its fault and refused, and the others are not touched', (t) => {
  const { own, templates, write, keys, faultOf } = setUp(t);
  const run = { 'run.sh': 'true' };
  const cases: readonly (readonly [string, Readonly<Record<string, string>>, RegExp])[] = [
    ['empty', {}, /no template\.yaml/],
    ['no-script', { 'template.yaml': GOOD }, /no run\.sh and no run\.py/],
    ['both', { 'template.yaml': GOOD, 'run.py': '', ...run }, /both/],
    ['yaml', { 'template.yaml': 'title: [', ...run }, /not valid YAML/],
    ['twice', { 'template.yaml': 'title: a\ntitle: b', ...run }, /not valid YAML/],
    ['bomb', { 'template.yaml': bomb(), ...run }, /not valid YAML|template\.yaml/],
    ['untitled', { 'template.yaml': 'description: x', ...run }, /title/],
    ['mistyped', { 'template.yaml': 'title: x\nresource: {}', ...run }, /resource/],
    [
      'schema',
      { 'template.yaml': 'title: x\nparams: {type: object, properties: {a: {minumum: 1}}}', ...run },
      /minumum/,
    ],
    ['no-object', { 'template.yaml': 'title: x\nparams: {type: array}', ...run }, /type: object/],
    ['reference', { 'template.yaml': 'title: x\nparams: {type: object, $ref: "http://x/y"}', ...run }, /JSON Schema/],
    ['time', { 'template.yaml': 'title: x\nresources: {time_limit: soon}', ...run }, /time_limit/],
    ['gpus', { 'template.yaml': 'title: x\nresources: {gpus: -1}', ...run }, /gpus/],
    ['large', { 'template.yaml': `title: x\n#${'x'.repeat(300_000)}`, ...run }, /at most/],
  ];
  write('good', { 'template.yaml': GOOD, ...run });
  for (const [key, files] of cases) write(key, files);
  for (const [key, , why] of cases) {
    assert.match(faultOf(key) ?? '', why, key);
    assert.throws(
      () => templates.get(key),
      (error) => error instanceof AppError && error.code === 'conflict' && why.test(error.message),
    );
  }
  assert.ok(!JSON.stringify(templates.broken()).includes(own), 'no path of the host');
  assert.deepEqual(keys(), ['echo_params', 'good', 'pytorch_example', 'pytorch_infer']);
});

function bomb(): string {
  const lines = ['title: x', 'params:', '  type: object', '  a0: &a0 [x, x, x, x, x, x, x, x, x]'];
  for (let n = 1; n < 12; n++)
    lines.push(
      `  a${n}: &a${n} [${Array(9)
        .fill(`*a${n - 1}`)
        .join(', ')}]`,
    );
  return lines.join('\n');
}

test('links and files that jobs cannot read are refused with what to do', (t) => {
  const { own, write, faultOf } = setUp(t);
  write('good', { 'template.yaml': GOOD, 'run.sh': 'true' });
  for (const key of ['link-script', 'link-yaml', 'closed-script', 'closed-folder']) {
    cpSync(join(own, 'good'), join(own, key), { recursive: true });
  }
  rmSync(join(own, 'link-script', 'run.sh'));
  symlinkSync('/bin/true', join(own, 'link-script', 'run.sh'));
  rmSync(join(own, 'link-yaml', 'template.yaml'));
  symlinkSync('/etc/passwd', join(own, 'link-yaml', 'template.yaml'));
  chmodSync(join(own, 'closed-script', 'run.sh'), 0o600);
  chmodSync(join(own, 'closed-folder'), 0o700);
  symlinkSync(join(own, 'good'), join(own, 'linked'));
  assert.match(faultOf('link-script') ?? '', /not a link/);
  assert.match(faultOf('link-yaml') ?? '', /must not be a link/);
  assert.match(faultOf('closed-script') ?? '', /chmod o\+r/);
  assert.match(faultOf('closed-folder') ?? '', /chmod o\+rx/);
  assert.match(faultOf('linked') ?? '', /must be a folder/);
});

test("a user's template cannot take a built-in one's name, and a bad name is told", (t) => {
  const { templates, write, faultOf } = setUp(t);
  write('echo_params', { 'template.yaml': GOOD, 'run.sh': 'true' });
  write('Bad Name', { 'template.yaml': GOOD, 'run.sh': 'true' });
  write('.hidden', {});
  assert.match(faultOf('echo_params') ?? '', /belongs to a built-in/);
  assert.equal(templates.get('echo_params')?.title, 'Echo parameters');
  assert.match(faultOf('Bad Name') ?? '', /1 to 64/);
  assert.equal(faultOf('.hidden'), undefined);
  for (const key of [
    '../builtin/echo_params',
    '',
    '.',
    '..',
    'a/b',
    '__proto__',
    'x'.repeat(65),
    'a\0',
    'echo_params\n',
  ]) {
    assert.equal(templates.get(key), null, key);
  }
});

test('looking up a template that did not change reads nothing and is cheap', async (t) => {
  const { templates } = setUp(t);
  const first = templates.get('pytorch_infer');
  const start = performance.now();
  for (let n = 0; n < 2000; n++) assert.equal(templates.get('pytorch_infer'), first);
  const microseconds = ((performance.now() - start) / 2000) * 1000;
  assert.ok(microseconds < 500, `${microseconds.toFixed(0)} µs`);
});

test('GET /templates lists them with their schemas and what is broken; GET /templates/{key} gives one', async (t) => {
  const { templates, write } = setUp(t);
  write('mine', { 'template.yaml': GOOD, 'run.sh': 'true' });
  write('broken', {});
  const app = createApp({
    token: 't',
    version: '0',
    log: pino({ level: 'silent' }),
    routes: templateRoutes({ templates }),
  });
  const get = (path: string) => request(app).get(path).set('Authorization', 'Bearer t');
  const { body } = await get('/templates').expect(200);
  assert.deepEqual(
    body.templates.map((each: { key: string }) => each.key),
    ['echo_params', 'mine', 'pytorch_example', 'pytorch_infer'],
  );
  assert.deepEqual(body.broken, [{ key: 'broken', fault: 'it has no template.yaml' }]);
  const mine = await get('/templates/mine').expect(200);
  assert.deepEqual(
    [mine.body.builtin, mine.body.resources],
    [false, { gpus: 0, cpus: 2, mem_gb: 1.5, time_limit: '1-00:00:00' }],
  );
  assert.equal(mine.body.params.properties.size.maximum, 9);
  await get('/templates/none').expect(404);
  await get('/templates/broken').expect(409);
  await get('/templates/NONE').expect(400);
});
