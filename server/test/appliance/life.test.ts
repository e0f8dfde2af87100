import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { isAlive, readProcess } from '../../appliance/processes.ts';
import {
  healthStatus,
  launchAppliance,
  processesOf,
  type RunningAppliance,
  startAppliance,
  waitUntil,
} from '../house/appliance.ts';
import { jobState, submit } from '../house/slurm-commands.ts';

describe('a running appliance', { timeout: 120_000 }, () => {
  let appliance: RunningAppliance;
  before(async () => {
    appliance = await startAppliance({ gpus: 2, env: { JR_NUM_CPUS: '4', JR_HOSTNAME: 'Gpu-BOX-01' } });
  });
  after(() => appliance?.remove());

  test('tells on /health, without a token, what it has', async () => {
    const answer = await fetch(`${appliance.baseUrl}/health`);
    const body = (await answer.json()) as { ok: boolean; slurm: boolean; gpus: object; node: { cpus: number } };
    assert.equal(answer.status, 200);
    assert.equal(body.ok && body.slurm, true);
    assert.deepEqual(body.gpus, { type: 'nvidia', total: 2, free: 2 });
    assert.equal(body.node.cpus, 4);
  });

  test('prints its address and a line to paste, and not the token that it was given', async () => {
    await waitUntil('it has printed', 5000, () => appliance.output().includes('JobRunner is ready'));
    assert.match(appliance.output(), new RegExp(`curl -s -H .*${appliance.port}/health`));
    assert.ok(!appliance.output().includes(appliance.token));
  });

  test('keeps what is secret from everybody else', () => {
    for (const [file, mode] of [
      ['slurm/munge/munge.key', 0o400],
      ['jr_slurm.db', 0o600],
      ['run/appliance.json', 0o600],
    ] as const) {
      assert.equal(statSync(join(appliance.root, file)).mode & 0o777, mode, file);
    }
  });

  test('runs the API as a user without groups, capabilities and environment', () => {
    const parent = appliance.daemonPid('api');
    const api = processesOf(appliance.root).find(({ parent: of }) => of === parent);
    assert.ok(api);
    const status = readFileSync(`/proc/${api.pid}/status`, 'utf8');
    const uid = /^Uid:\t(\d+)\t(\d+)/m.exec(status);
    assert.notEqual(uid?.[1], '0');
    assert.match(status, /^Groups:\t\s*$/m);
    assert.match(status, /^CapEff:\t0+$/m);
    assert.match(status, /^NoNewPrivs:\t1$/m);
    const names = readFileSync(`/proc/${api.pid}/environ`, 'utf8')
      .split('\0')
      .map((each) => each.split('=')[0]);
    assert.deepEqual(
      names.filter((name) => name?.startsWith('JR_')),
      [],
    );
  });

  test('gives the daemons none of the settings', () => {
    for (const name of ['munged', 'slurmctld', 'slurmd'] as const) {
      assert.ok(!readFileSync(`/proc/${appliance.daemonPid(name)}/environ`, 'utf8').includes('JR_AUTH_TOKEN'), name);
    }
  });

  test('runs a job as the submit user, with the GPU that Slurm gave it', async () => {
    const id = submit(appliance, ['--gres=gpu:1'], 'id -un; echo "gpu=$CUDA_VISIBLE_DEVICES"');
    await waitUntil('the job has ended', 15_000, () => jobState(appliance, id) === 'COMPLETED');
    assert.equal(readFileSync(`/tmp/jr-test-${id}.out`, 'utf8'), 'runner\ngpu=0\n');
    rmSync(`/tmp/jr-test-${id}.out`);
    await waitUntil('Slurm has noted its end', 5000, () =>
      readFileSync(join(appliance.root, 'slurm/events/jobcomp.log'), 'utf8').includes(`JobId=${id} `),
    );
  });

  test('a second start on the same root ends at once with one clear line', async () => {
    const second = await launchAppliance({ root: appliance.root });
    assert.equal(await second.exit, 1);
    assert.match(second.output(), /^jobrunner: an appliance is already running on .*\n$/);
    assert.equal(await healthStatus(appliance.baseUrl), 200);
  });

  for (const name of ['munged', 'slurmctld', 'slurmd', 'api'] as const) {
    test(`starts ${name} again when it is killed, and a running job lives on`, async () => {
      const id = submit(appliance, [], 'sleep 100');
      await waitUntil('the job runs', 15_000, () => jobState(appliance, id) === 'RUNNING');
      // slurmctld writes its state up to 5 s late: what it had not written yet, its next life does not know.
      const known = Date.now();
      const state = join(appliance.root, 'slurm/state/job_state');
      await waitUntil('its state is on the disk', 10_000, () => existsSync(state) && statSync(state).mtimeMs > known);
      const killed = appliance.daemonPid(name);
      assert.ok(killed);
      process.kill(killed, 'SIGKILL');
      await waitUntil(`${name} is another process`, 10_000, () => (appliance.daemonPid(name) ?? killed) !== killed);
      await waitUntil('it takes jobs again', 20_000, async () => (await healthStatus(appliance.baseUrl)) === 200);
      assert.equal(jobState(appliance, id), 'RUNNING');
      execFileSync('scancel', [id], { env: appliance.slurmEnv });
      await waitUntil('the job is gone', 10_000, () => jobState(appliance, id) === 'CANCELLED');
      rmSync(`/tmp/jr-test-${id}.out`, { force: true });
    });
  }

  test('shows on /health that a daemon is down', async () => {
    const service = join(appliance.root, 'run/service/slurmctld');
    execFileSync('s6-svc', ['-d', service]);
    await waitUntil('/health is 503', 5000, async () => (await healthStatus(appliance.baseUrl)) === 503);
    execFileSync('s6-svc', ['-u', service]);
    await waitUntil('/health is 200 again', 15_000, async () => (await healthStatus(appliance.baseUrl)) === 200);
  });

  test('a second appliance runs beside it, and neither feels the other stop', async () => {
    const other = await startAppliance();
    try {
      const here = submit(appliance, [], 'sleep 100');
      const there = submit(other, [], 'sleep 100');
      await waitUntil(
        'both jobs run',
        15_000,
        () => jobState(appliance, here) === 'RUNNING' && jobState(other, there) === 'RUNNING',
      );
      assert.equal(await other.stop(), 0);
      assert.deepEqual(processesOf(other.root), []);
      assert.equal(jobState(appliance, here), 'RUNNING');
      execFileSync('scancel', [here], { env: appliance.slurmEnv });
      for (const id of [here, there]) rmSync(`/tmp/jr-test-${id}.out`, { force: true });
    } finally {
      await other.remove();
    }
  });

  test('stops within 10 s with exit code 0 while a job runs that ignores signals, and leaves no process', async () => {
    const id = submit(appliance, [], 'trap "" TERM INT; while :; do sleep 1; done');
    await waitUntil('the job runs', 15_000, () => jobState(appliance, id) === 'RUNNING');
    const started = Date.now();
    assert.equal(await appliance.stop(), 0);
    assert.ok(Date.now() - started < 10_000, `took ${Date.now() - started} ms`);
    assert.deepEqual(processesOf(appliance.root), []);
    assert.match(
      readFileSync(join(appliance.root, 'slurm/events/jobcomp.log'), 'utf8'),
      new RegExp(`JobId=${id} .*JobState=CANCELLED`),
    );
    rmSync(`/tmp/jr-test-${id}.out`, { force: true });
  });

  test('is ready again within a few seconds, with the drain undone, the ids counting on and the same key', async () => {
    const key = readFileSync(join(appliance.root, 'slurm/munge/munge.key'));
    const started = Date.now();
    const next = await startAppliance({ root: appliance.root, env: { JR_HOSTNAME: 'a'.repeat(63) }, gpus: 1 });
    try {
      assert.ok(Date.now() - started < 5000, `took ${Date.now() - started} ms`);
      assert.deepEqual(readFileSync(join(appliance.root, 'slurm/munge/munge.key')), key);
      const id = submit(next, [], 'true');
      assert.ok(Number(id) > 5, `id ${id}`);
      await waitUntil('the job has ended', 15_000, () => jobState(next, id) === 'COMPLETED');
      rmSync(`/tmp/jr-test-${id}.out`, { force: true });
    } finally {
      assert.equal(await next.stop(), 0);
    }
  });
});

describe('an appliance whose life was cut short', { timeout: 120_000 }, () => {
  let appliance: RunningAppliance;
  before(async () => {
    appliance = await startAppliance();
  });
  after(() => appliance?.remove());

  test('finds the daemons that outlived their supervisor and ends them, but keeps the job that runs', async () => {
    const id = submit(appliance, [], 'echo $$; exec sleep 1000');
    const out = `/tmp/jr-test-${id}.out`;
    await waitUntil('the job runs', 15_000, () => existsSync(out) && readFileSync(out, 'utf8').includes('\n'));
    const job = readProcess(Number(readFileSync(out, 'utf8')));
    assert.ok(job);
    process.kill(appliance.pid, 'SIGKILL');
    const old = appliance.daemonPid('slurmctld');
    const next = await startAppliance({ root: appliance.root });
    try {
      assert.notEqual(next.daemonPid('slurmctld'), old);
      assert.equal(processesOf(appliance.root).filter(({ comm }) => comm === 's6-svscan').length, 1);
      assert.ok(isAlive(job));
      assert.equal(jobState(next, id), 'RUNNING');
    } finally {
      assert.equal(await next.stop(), 0);
      rmSync(out, { force: true });
    }
    assert.deepEqual(processesOf(appliance.root), []);
  });

  test('starts when everything of it was killed at once', async () => {
    const first = await startAppliance({ root: appliance.root });
    await first.kill9();
    const next = await startAppliance({ root: appliance.root });
    assert.equal(await next.stop(), 0);
  });

  test('sets a state aside that slurmctld cannot read, and starts', async () => {
    writeFileSync(join(appliance.root, 'slurm/state/job_state'), 'garbage that is no state at all');
    writeFileSync(join(appliance.root, 'slurm/state/clustername'), 'somebody-else');
    const next = await startAppliance({ root: appliance.root });
    assert.match(next.output(), /set aside as/);
    assert.equal(await next.stop(), 0);
  });

  test('never touches a process that took over a number from an old pid file', async () => {
    const bystander = spawn('sleep', ['600'], { stdio: 'ignore' });
    const info = readProcess(bystander.pid ?? 0);
    assert.ok(info);
    writeFileSync(join(appliance.root, 'run/state/slurmd.pid'), `${info.pid} ${info.startTicks - 1}\n`);
    const next = await startAppliance({ root: appliance.root });
    try {
      assert.ok(isAlive(info));
    } finally {
      bystander.kill('SIGKILL');
      await next.stop();
    }
  });

  test('never touches an appliance in a container where a root has the same name', async () => {
    const program = join(`${appliance.root}.dev`, 's6-supervise');
    copyFileSync('/bin/sleep', program);
    chmodSync(program, 0o755);
    const script =
      'mount -t tmpfs none "$1" && mkdir -p "$1/run/service/munged" && cd "$1/run/service/munged" && exec "$2" 600';
    const container = spawn('unshare', ['-m', 'sh', '-c', script, 'sh', appliance.root, program], { stdio: 'ignore' });
    await waitUntil('it is there', 5000, () => readProcess(container.pid ?? 0)?.comm === 's6-supervise');
    const next = await startAppliance({ root: appliance.root });
    try {
      assert.equal(readProcess(container.pid ?? 0)?.comm, 's6-supervise');
      assert.doesNotMatch(next.output(), /left behind/);
    } finally {
      container.kill('SIGKILL');
      await next.stop();
    }
  });

  test('gives up with a non-zero exit code when a daemon never comes up, and says its last words', async () => {
    const broken = await startAppliance({ root: appliance.root });
    // The key is what munged cannot do without; the next start of it fails for good.
    writeFileSync(join(appliance.root, 'slurm/munge/munge.key'), 'short');
    process.kill(broken.daemonPid('munged') ?? 0, 'SIGKILL');
    const code = await new Promise<number | null>((resolve) => {
      void waitUntil('it has ended', 40_000, () => !existsSync(`/proc/${broken.pid}`)).then(() =>
        resolve(broken.stop()),
      );
    });
    assert.notEqual(code, 0);
    assert.match(broken.output(), /giving up on munged/);
    assert.deepEqual(processesOf(appliance.root), []);
  });
});
