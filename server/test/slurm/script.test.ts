import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { EXIT_CLAIMED_BY_ANOTHER, EXIT_NO_CLAIM, gpuTable, renderScript } from '../../slurm/script.ts';
import { parseClaim, parseEndNote } from '../../slurm/witness.ts';
import { until } from '../house/slurm.ts';

const root = mkdtempSync(join(tmpdir(), "jr-script $(touch pwned) ' "));
after(() => rmSync(root, { recursive: true }));

/** A job's folders, with every nasty character in their names, and its script. */
function place(name: string, command: string, over: Partial<Parameters<typeof renderScript>[0]> = {}) {
  const folder = join(root, name);
  for (const each of ['data', 'result', 'witness']) mkdirSync(join(folder, each), { recursive: true });
  const entry = join(folder, 'run.sh');
  writeFileSync(entry, command);
  writeFileSync(join(folder, 'params.json'), '{"a":"$(touch pwned); `x` \\" \'"}');
  const script = join(folder, 'script.sh');
  const text = renderScript({
    jobId: 7,
    entry: { file: entry, interpreter: 'bash' },
    datasetDir: join(folder, 'data'),
    resultDir: join(folder, 'result'),
    paramsFile: join(folder, 'params.json'),
    witnessStarted: join(folder, 'witness', '7.started'),
    witnessEnded: join(folder, 'witness', '7.ended'),
    gpuTableFile: join(folder, 'gpu-uuids'),
    cpus: 3,
    gpus: 0,
    ...over,
  });
  writeFileSync(script, text);
  const run = (env: Record<string, string> = {}) =>
    spawnSync('bash', [script], {
      cwd: folder,
      encoding: 'utf8',
      timeout: 10_000,
      env: { PATH: '/usr/bin:/bin', ...env },
    });
  const note = (which: 'started' | 'ended') => readFileSync(join(folder, 'witness', `7.${which}`), 'utf8');
  return { folder, script, run, note };
}

test('the script is valid bash, for jobs with and without GPUs', () => {
  for (const gpus of [0, 2]) execFileSync('bash', ['-n', place(`syntax ${gpus}`, '', { gpus }).script]);
});

test('the command gets its folders, its parameters word by word, its threads, and no value of a user is ever run', () => {
  const { folder, run } = place(
    'plain',
    'printf "%s|" "$PWD" "$DATASET_DIR" "$RESULT_DIR" "$JR_PARAMS" "$JR_JOB_ID" "$OMP_NUM_THREADS" "$PYTHONUNBUFFERED" "${CUDA_VISIBLE_DEVICES-unset}"; umask',
  );
  const { stdout, status } = run();
  assert.equal(status, 0);
  const data = join(folder, 'data');
  const values = [data, data, join(folder, 'result'), '{"a":"$(touch pwned); `x` \\" \'"}', '7', '3', '1', ''].join(
    '|',
  );
  assert.match(stdout, /^JOB_START \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\nDATASET_DIR=.*\nRESULT_DIR=.*\n/);
  assert.ok(stdout.includes(`\n${values}|0027\n`), stdout);
  assert.match(stdout, /\nJOB_END \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n$/);
  assert.equal(existsSync(join(folder, 'pwned')), false);
});

test('it claims before the command and notes the end after it, with the exit code', () => {
  const { run, note } = place('fails', 'exit 7');
  assert.equal(run({ SLURM_JOB_ID: '42' }).status, 7);
  const claim = parseClaim(note('started'));
  assert.equal(claim?.slurmId, '42');
  assert.ok(claim !== null && Math.abs(Date.now() - claim.at) < 20_000);
  assert.equal(claim.boot, readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim());
  const end = parseEndNote(note('ended'));
  assert.equal(end?.exitCode, 7);
  assert.ok(end !== null && end.at >= claim.at);
});

test('a second one finds the claim and runs nothing', () => {
  const { folder, run, note } = place('twice', 'echo x >> "$RESULT_DIR/runs"');
  assert.equal(run().status, 0);
  const first = note('started');
  const { status, stdout } = run();
  assert.deepEqual([status, stdout], [EXIT_CLAIMED_BY_ANOTHER, '']);
  assert.equal(note('started'), first);
  assert.equal(readFileSync(join(folder, 'result', 'runs'), 'utf8'), 'x\n');
});

test('of many at once exactly one runs the command', async () => {
  const { folder, script } = place('race', 'echo x >> "$RESULT_DIR/runs"');
  const codes = await Promise.all(
    Array.from({ length: 20 }, () => {
      const child = spawn('bash', [script], { stdio: 'ignore', env: { PATH: '/usr/bin:/bin' } });
      return new Promise<number | null>((resolve) => child.once('exit', resolve));
    }),
  );
  assert.equal(codes.filter((code) => code === 0).length, 1);
  assert.equal(readFileSync(join(folder, 'result', 'runs'), 'utf8'), 'x\n');
});

test('where it cannot note its start it does not run the command, and says so', () => {
  const { folder, run } = place('no witness', 'echo x > "$RESULT_DIR/runs"', {
    witnessStarted: '/nonexistent/7.started',
  });
  const { status, stderr } = run();
  assert.equal(status, EXIT_NO_CLAIM);
  assert.match(stderr, /disk full/);
  assert.equal(existsSync(join(folder, 'result', 'runs')), false);
});

test('a TERM for the script alone reaches the command, whose exit code is kept and noted', async () => {
  const { folder, script, note } = place(
    'term',
    'trap "echo saved; exit 5" TERM; touch "$RESULT_DIR/on"; while :; do sleep 0.05; done',
  );
  const child = spawn('bash', [script], { env: { PATH: '/usr/bin:/bin' }, stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  child.stdout.on('data', (chunk) => {
    out += chunk;
  });
  const exit = new Promise<number | null>((resolve) => child.once('close', resolve));
  await until('the command to run', () => existsSync(join(folder, 'result', 'on')));
  child.kill('SIGTERM');
  assert.equal(await exit, 5);
  assert.match(out, /saved\nJOB_END/);
  assert.equal(parseEndNote(note('ended'))?.exitCode, 5);
});

test('GPUs are given by UUID where the table knows all of them, and by index where it does not', () => {
  const show = 'echo "<$CUDA_VISIBLE_DEVICES $CUDA_DEVICE_ORDER>"';
  const known = place('uuids', show, { gpus: 2 });
  const gpu = (index: number, uuid: string | null) => ({ index, uuid, file: '', name: null });
  writeFileSync(join(known.folder, 'gpu-uuids'), gpuTable([gpu(1, 'GPU-b'), gpu(0, 'GPU-a'), gpu(2, 'GPU-c')]));
  const env = { SLURM_JOB_GPUS: '0,2', CUDA_VISIBLE_DEVICES: '0,2' };
  assert.match(known.run(env).stdout, /<GPU-a,GPU-c PCI_BUS_ID>/);
  assert.deepEqual(parseClaim(known.note('started'))?.gpuIds, ['0', '2']);
  const unknown = place('indexes', show, { gpus: 2 });
  writeFileSync(join(unknown.folder, 'gpu-uuids'), gpuTable([gpu(0, 'GPU-a'), gpu(2, null)]));
  assert.match(unknown.run(env).stdout, /<0,2 PCI_BUS_ID>/);
  assert.match(place('no table', show, { gpus: 2 }).run(env).stdout, /<0,2 PCI_BUS_ID>/);
});

test('a job without GPUs sees none, whatever its environment says', () => {
  const { run } = place('none', 'echo "<${CUDA_VISIBLE_DEVICES-unset}>"');
  assert.match(run({ CUDA_VISIBLE_DEVICES: '0' }).stdout, /<>/);
});

test('what the job writes is for its group too, and for nobody else', () => {
  const { folder, run } = place('modes', 'echo x > "$RESULT_DIR/file"');
  run();
  assert.equal(statSync(join(folder, 'result', 'file')).mode & 0o777, 0o640);
});
