import assert from 'node:assert/strict';
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createTemplateLibrary } from '../../templates/loader.ts';

const templates = createTemplateLibrary({
  builtin: join(import.meta.dirname, '../../templates/builtin'),
  own: '/nonexistent',
});
const PATH = '/usr/bin:/bin';
const hasTorch = spawnSync('/usr/bin/python3', ['-c', 'import torch'], { timeout: 60_000 }).status === 0;

/** Runs a template as the batch script does: its interpreter, in the dataset's folder, with the variables of the contract. */
function setUp(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'jr-template-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const dataset = join(folder, 'dataset');
  const result = join(folder, 'result');
  mkdirSync(dataset);
  mkdirSync(result);
  const run = (
    key: string,
    params: object | string,
    env: Readonly<Record<string, string>> = {},
  ): SpawnSyncReturns<string> => {
    const template = templates.get(key);
    assert.ok(template);
    const json = typeof params === 'string' ? params : JSON.stringify(params);
    return spawnSync(template.entry.interpreter, [template.entry.file], {
      cwd: dataset,
      encoding: 'utf8',
      timeout: 120_000,
      env: {
        PATH,
        DATASET_DIR: dataset,
        RESULT_DIR: result,
        JR_PARAMS: json,
        JR_JOB_ID: '7',
        OMP_NUM_THREADS: '1',
        PYTHONUNBUFFERED: '1',
        ...env,
      },
    });
  };
  const json = (name: string) => JSON.parse(readFileSync(join(result, name), 'utf8'));
  return { dataset, result, run, json };
}

const awkward = { text: `"quoted" 'single' $(id) \`id\` \\ %s %n \n ü日本`, nested: [1, { a: null }], '$(x)': ';rm' };

test('echo_params writes its parameters back, whatever is in them', (t) => {
  const { result, run, json } = setUp(t);
  const done = run('echo_params', awkward);
  assert.equal(done.status, 0, done.stderr);
  assert.deepEqual(json('result.json'), { ok: true, params: awkward });
  assert.deepEqual(readdirSync(result), ['result.json']);
});

test('pytorch_example trains with real PyTorch and leaves weights, a result and a manifest', {
  skip: !hasTorch && 'no PyTorch here',
}, (t) => {
  const { result, run, json } = setUp(t);
  const done = run('pytorch_example', { epochs: 2, experimentId: 'exp 1', other: 'kept' });
  assert.equal(done.status, 0, done.stderr);
  assert.match(done.stdout, /epoch 2\/2 loss \d/);
  const { ok, cuda_available, device_count, device_names, params, losses } = json('result.json');
  assert.deepEqual([ok, typeof cuda_available, device_names.length], [true, 'boolean', device_count]);
  assert.deepEqual(params, { epochs: 2, experimentId: 'exp 1', other: 'kept' });
  assert.ok(losses[1] < losses[0], 'it learns');
  assert.deepEqual(json('manifest.json'), {
    experimentId: 'exp 1',
    outputs: [
      { id: 'summary', path: 'result.json' },
      { id: 'weights', path: 'weights/model.pth' },
    ],
  });
  const weights = join(result, 'weights', 'model.pth');
  const load = `import sys, torch; print(sum(each.numel() for each in torch.load(sys.argv[1]).values()))`;
  const loaded = spawnSync('/usr/bin/python3', ['-c', load, weights], { encoding: 'utf8', timeout: 60_000 });
  assert.equal(loaded.stdout.trim(), String(8 * 32 + 32 + 32 + 1));
  assert.deepEqual(readdirSync(join(result, 'weights')), ['model.pth'], 'nothing half-written stays');
  assert.equal(statSync(weights).mode & 0o040, 0o040, 'the group can read it');
});

test('given a GPU that PyTorch cannot use it says so and trains on the CPU', {
  skip: !hasTorch && 'no PyTorch here',
}, (t) => {
  const { run, json } = setUp(t);
  const done = run('pytorch_example', { epochs: 1, steps: 1, lr: 10 }, { CUDA_VISIBLE_DEVICES: '63' });
  assert.equal(done.status, 0, done.stderr);
  assert.match(done.stdout, /WARNING: the job was given GPU 63, but .* cannot use it: training on the CPU/);
  assert.deepEqual([json('result.json').cuda_available, json('result.json').device], [false, 'cpu']);
  assert.equal(json('manifest.json').experimentId, 'job-7');
});

test('a GPU that PyTorch sees but that does not compute is no reason to fail', {
  skip: !hasTorch && 'no PyTorch here',
}, (t) => {
  const { dataset, run, json } = setUp(t);
  mkdirSync(join(dataset, 'patch'));
  writeFileSync(join(dataset, 'patch', 'sitecustomize.py'), 'import torch\ntorch.cuda.is_available = lambda: True');
  const done = run(
    'pytorch_example',
    { epochs: 1, steps: 1 },
    { CUDA_VISIBLE_DEVICES: '0', PYTHONPATH: join(dataset, 'patch') },
  );
  assert.equal(done.status, 0, done.stderr);
  assert.match(done.stdout, /WARNING: the job was given GPU 0, but it does not compute/);
  assert.equal(json('result.json').cuda_available, false);
});

test('without PyTorch it fails, says how to get it, and writes nothing', (t) => {
  const { dataset, result, run } = setUp(t);
  mkdirSync(join(dataset, 'none'));
  writeFileSync(join(dataset, 'none', 'torch.py'), 'raise ImportError("No module named torch")');
  const done = run('pytorch_example', {}, { PYTHONPATH: join(dataset, 'none') });
  assert.equal(done.status, 1);
  assert.match(done.stderr, /PyTorch is not installed .*\n.*pip install torch/);
  assert.deepEqual(readdirSync(result), []);
});

test('the parameters of the PyTorch templates are bounded', () => {
  const faults = (key: string, params: object) =>
    templates
      .get(key)
      ?.validate(params as never)
      .map(({ field }) => field);
  assert.deepEqual(faults('pytorch_example', {}), []);
  assert.deepEqual(faults('pytorch_example', { epochs: 0, lr: -1, seed: 1.5, hidden: 'x', experimentId: '' }), [
    'params_json.experimentId',
    'params_json.epochs',
    'params_json.hidden',
    'params_json.lr',
    'params_json.seed',
  ]);
  assert.deepEqual(faults('pytorch_infer', { script: 'a/infer..py', args: ['--x', 1] }), []);
  assert.deepEqual(faults('pytorch_infer', {}), ['params_json.script']);
  for (const script of ['../x.py', 'a/../x.py', '/x.py', '', 'a/..', 7, 'a\0']) {
    assert.notDeepEqual(faults('pytorch_infer', { script }), [], String(script));
  }
});

test('pytorch_infer calls the script with the data, the parameters and the arguments as they are', (t) => {
  const { dataset, run, json } = setUp(t);
  mkdirSync(join(dataset, 'src'));
  writeFileSync(
    join(dataset, 'src', 'infer.py'),
    'import json, os, sys\njson.dump(sys.argv[1:], open(os.environ["RESULT_DIR"] + "/result.json", "w"))\nos.makedirs(os.environ["RESULT_DIR"] + "/out")\nfor n in ("out/a.txt", "a.json"): open(os.environ["RESULT_DIR"] + "/" + n, "w")',
  );
  const params = { script: 'src/infer.py', args: ['--flag', '$(id)', "a 'b' c", 5], more: awkward };
  const done = run('pytorch_infer', params);
  assert.equal(done.status, 0, done.stderr);
  const [data, dir, flag, text, ...rest] = json('result.json');
  assert.deepEqual(
    [data, dir, flag, JSON.parse(text), rest],
    ['--data', dataset, '--params', params, ['--flag', '$(id)', "a 'b' c", '5']],
  );
  assert.deepEqual(json('manifest.json'), {
    experimentId: 'job-7',
    outputs: [
      { id: 'summary', path: 'result.json' },
      { id: 'a', path: 'a.json' },
      { id: 'a.txt', path: 'out/a.txt' },
    ],
  });
  run('pytorch_infer', { script: 'src/infer.py', args: `--name "two words"  x` });
  assert.deepEqual(json('result.json').slice(4), ['--name', 'two words', 'x']);
});

test("pytorch_infer keeps the script's exit code, makes a result, and leaves what the script made", (t) => {
  const { dataset, result, run, json } = setUp(t);
  writeFileSync(join(dataset, 'fail.py'), 'import sys; sys.exit(3)');
  writeFileSync(join(dataset, 'die.py'), 'import os, signal; os.kill(os.getpid(), signal.SIGKILL)');
  assert.equal(run('pytorch_infer', { script: 'fail.py' }).status, 3);
  assert.deepEqual(json('result.json'), { ok: false, script: 'fail.py', exit_code: 3, params: { script: 'fail.py' } });
  writeFileSync(join(result, 'manifest.json'), 'mine');
  assert.equal(run('pytorch_infer', { script: './die.py' }).status, 137);
  assert.equal(json('result.json').exit_code, 3, 'a result that is there stays');
  assert.equal(readFileSync(join(result, 'manifest.json'), 'utf8'), 'mine');
});

test('pytorch_infer refuses a script that is not in the dataset, and says what is', (t) => {
  const { dataset, result, run } = setUp(t);
  writeFileSync(join(dataset, 'infer.py'), '');
  const done = run('pytorch_infer', { script: 'inference.py' });
  assert.equal(done.status, 1);
  assert.match(done.stderr, /has no file 'inference.py'; its Python files: infer.py/);
  for (const script of ['../x.py', '/etc/passwd', '.', 7]) assert.equal(run('pytorch_infer', { script }).status, 1);
  assert.match(run('pytorch_infer', { script: 'infer.py', x: 'y'.repeat(100_000) }).stderr, /^$/);
  assert.ok(existsSync(join(result, 'result.json')));
});
