import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { execa } from 'execa';
import { type Appliance, ended, ready, startContainer, TOKEN, until } from './appliance.ts';
import { ensureBaseImage } from './base-image.ts';
import { type Engine, startEngine } from './engine.ts';

/**
 * The image, for real: built, run as an ordinary unprivileged container on a bridge network, used, killed, and replaced on the same volume.
 * `node --import tsx --test server/test/docker/image.docker.ts`, as root. Makes what it needs and leaves nothing but a cached base image.
 */
const repository = join(import.meta.dirname, '../../..');
const tag = `jobrunner-test-${randomBytes(4).toString('hex')}`;
const withTorch = `${tag}-torch`;
const volume = tag;
const names: string[] = [];
const images: string[] = [];
let engine: Engine;

const container = (suffix: string) => {
  const name = `${tag}-${suffix}`;
  names.push(name);
  return name;
};
const gpus = (count: number) =>
  Array.from({ length: count }, (_, index) => ['--device', `/dev/null:/dev/nvidia${index}`]).flat();
const token = ['--env', `JR_AUTH_TOKEN=${TOKEN}`];
const script = 'import sys, time\nprint("sleeping", flush=True)\ntime.sleep(float(sys.argv[-1]))\n';

before(async () => {
  engine = await startEngine();
  await ensureBaseImage(engine, 'trixie');
});

after(async () => {
  if (engine === undefined) return;
  for (const name of names) await engine.tried(['rm', '--force', '--volumes', name]);
  await engine.tried(['volume', 'rm', '--force', volume]);
  for (const image of images) await engine.tried(['rmi', '--force', image]);
  await engine.stop();
});

test('the image builds from a clone, and so does one of a user with PyTorch on top of it', async () => {
  const started = performance.now();
  images.push(tag);
  await engine.docker(['build', '--network', 'host', '--tag', tag, repository], { timeout: 900_000 });
  const built = performance.now();
  const folder = await mkdtemp(join(tmpdir(), 'jr-from-'));
  try {
    await writeFile(
      join(folder, 'Dockerfile'),
      `FROM ${tag}\nRUN apt-get update && apt-get install -y --no-install-recommends python3-torch && rm -rf /var/lib/apt/lists/*\n`,
    );
    images.push(withTorch);
    await engine.docker(['build', '--network', 'host', '--tag', withTorch, folder], { timeout: 900_000 });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  const size = async (image: string) =>
    Math.round(Number(await engine.docker(['image', 'inspect', '--format', '{{.Size}}', image])) / 1e6);
  console.log(`image: ${await size(tag)} MB, built in ${Math.round((built - started) / 1000)} s`);
  console.log(`with PyTorch: ${await size(withTorch)} MB, ${Math.round((performance.now() - built) / 1000)} s more`);
  assert.ok((await size(tag)) < 450, 'the image has grown');
});

test('no munge key, no sources, no node_modules and no secret are in any layer of the image', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'jr-layers-'));
  try {
    await engine.docker(['save', '--output', join(folder, 'image.tar'), tag]);
    await execa('tar', ['-C', folder, '-xf', join(folder, 'image.tar')]);
    const manifest = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8'))[0] as { Layers: string[] };
    let files = '';
    for (const layer of manifest.Layers) files += (await execa('tar', ['-tf', join(folder, layer)])).stdout;
    assert.ok(files.includes('usr/lib/jobrunner/dist/prepare.mjs'));
    assert.doesNotMatch(
      files,
      /munge\.key|munge\/munge\.key|node_modules\/(?!npm|corepack)|usr\/lib\/jobrunner\/server/,
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

let first: Appliance;

test('an ordinary unprivileged container is ready in seconds and tells Docker that it is healthy', async () => {
  first = await startContainer(engine, container('first'), [
    ...['--hostname', 'First-Host', '--volume', `${volume}:/opt/jobrunner`],
    ...gpus(2),
    ...token,
    withTorch,
  ]);
  console.log(`ready after ${(await ready(first)).toFixed(1)} s`);
  const health = await first.health();
  assert.equal(health?.slurm, true);
  assert.equal(health?.b2_mounted, false);
  const sinfo = await engine.docker(['exec', first.name, 'sinfo', '--noheader', '--format', '%T %G']);
  assert.match(sinfo, /^idle gpu:.*:2/);
  assert.match(await engine.docker(['exec', first.name, 'cat', '/var/log/slurm/slurmctld.log']), /slurmctld/);
  await until('healthy', 60, async () =>
    (await engine.docker(['inspect', '--format', '{{.State.Health.Status}}', first.name])).includes('healthy'),
  );
});

test('the acceptance script passes against it, with real PyTorch', async () => {
  const result = await execa(join(repository, 'run_tests.sh'), [], {
    env: { JR_BASE_URL: first.url, JR_AUTH_TOKEN: TOKEN },
    all: true,
    reject: false,
    timeout: 300_000,
  });
  assert.equal(result.exitCode, 0, String(result.all).slice(-6000));
});

test('a new container on the volume of a killed one carries on: history, datasets, outputs, waiting jobs, numbers', async () => {
  const dataset = await first.upload('sleep.py', script);
  const done = await first.submit({
    dataset_sha: dataset,
    command_key: 'echo_params',
    params_json: '{"a":1}',
    cpus: '1',
    mem_gb: '1',
  });
  await ended(first, done, 'COMPLETED');
  const sleeping = { dataset_sha: dataset, command_key: 'pytorch_infer', gpus: '1', cpus: '1', mem_gb: '1' };
  const running = await first.submit({ ...sleeping, params_json: '{"script":"sleep.py","args":["600"]}' });
  await until('the long job runs', 30, async () => (await first.job(running)).status === 'RUNNING');
  const cpus = String(availableParallelism());
  const waiting = await first.submit({ dataset_sha: dataset, command_key: 'echo_params', cpus, mem_gb: '1' });
  assert.equal((await first.job(waiting)).done, false);
  await engine.docker(['kill', '--signal', 'KILL', first.name]);

  const second = await startContainer(engine, container('second'), [
    ...['--hostname', 'another', '--volume', `${volume}:/opt/jobrunner`],
    ...gpus(1),
    ...token,
    tag,
  ]);
  await ready(second);
  assert.equal((await second.job(done)).status, 'COMPLETED');
  assert.equal(JSON.parse((await second.get(`/jobs/${done}/result`)).text).ok, true);
  assert.match((await second.get(`/outputs/by_job/${done}`)).text, /"output_id"/);
  assert.match((await second.get(`/datasets/exists/${dataset}`)).text, /"exists": true/);
  await ended(second, running, 'NODE_FAIL');
  await ended(second, waiting, 'COMPLETED');
  const next = await second.submit({ dataset_sha: dataset, command_key: 'echo_params', cpus: '1', mem_gb: '1' });
  assert.equal(next, waiting + 1);
  await ended(second, next, 'COMPLETED');

  const started = performance.now();
  await engine.docker(['stop', second.name]);
  const seconds = (performance.now() - started) / 1000;
  assert.equal(
    await engine.docker(['inspect', '--format', '{{.State.ExitCode}}', second.name]),
    '0',
    await second.logs(),
  );
  assert.ok(seconds < 10, `docker stop took ${seconds} s`);
  console.log(`docker stop: ${seconds.toFixed(1)} s`);
});

test('it runs with the rights of a rented container, started by an on-start script that is not process 1', async () => {
  const rented = await startContainer(engine, container('rented'), [
    ...['--cap-drop', 'NET_RAW', '--init', '--entrypoint', 'sleep'],
    ...token,
    ...[
      '--env',
      'JR_B2_ENABLE=1',
      '--env',
      'JR_B2_BUCKET=data',
      '--env',
      'JR_B2_KEY_ID=id',
      '--env',
      'JR_B2_APP_KEY=key',
    ],
    ...[tag, 'infinity'],
  ]);
  await engine.docker(['exec', '--detach', rented.name, 'sh', '-c', 'exec /entrypoint.sh >/onstart.log 2>&1']);
  await ready(rented).catch(async (error) => {
    console.log(await engine.docker(['exec', rented.name, 'cat', '/onstart.log']));
    throw error;
  });
  // A bucket is asked for where none can be mounted: jobs run all the same, and the reason is told.
  assert.equal((await rented.health())?.b2_mounted, false);
  const dataset = await rented.upload('one.txt', '1');
  const id = await rented.submit({
    dataset_sha: dataset,
    command_key: 'echo_params',
    gpus: '0',
    cpus: '1',
    mem_gb: '1',
  });
  await ended(rented, id, 'COMPLETED');
});

test('without a token a random one is printed once, with a line to paste', async () => {
  const bare = await startContainer(engine, container('bare'), [tag]);
  await ready(bare);
  await until('the line to paste', 10, async () => /curl .*Bearer \S{16,}/.test(await bare.logs()));
});
