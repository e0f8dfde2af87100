import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readFacts } from '../../appliance/facts.ts';
import { prepareCgroups } from '../../slurm/detect-cgroup.ts';
import { freePort, launchAppliance, newRoot, processesOf, startAppliance, waitUntil } from '../house/appliance.ts';
import { jobState, submit } from '../house/slurm-commands.ts';

const checkout = fileURLToPath(new URL('../../../', import.meta.url));

/** Starts, expects it to end at once, and returns what it said. */
async function refused(env: Readonly<Record<string, string>>): Promise<string> {
  const root = newRoot();
  const appliance = await launchAppliance({ root, env: { JR_ROOT: root, ...env } });
  try {
    assert.equal(await appliance.exit, 1, appliance.output());
    return appliance.output().replace('jobrunner: building\n', '');
  } finally {
    await appliance.remove();
    rmSync(root, { recursive: true, force: true });
  }
}

describe('a start that cannot be', { timeout: 120_000 }, () => {
  for (const [env, expected] of [
    [{ PORT: '0' }, /PORT must be from 1 to 65535 \(it is "0"\)/],
    [{ JR_NUM_GPUS: '3', JR_GPU_DEV_PREFIX: '/nowhere/nvidia' }, /JR_NUM_GPUS is 3, .*\/nowhere\/nvidia0 is missing/],
    [{ JR_ROOT: `/tmp/${'long/'.repeat(20)}x` }, /JR_ROOT .* at most \d+ are allowed/],
    [{ JR_ROOT: 'relative' }, /JR_ROOT must be an absolute path/],
    [{ JR_ROOT: '/' }, /JR_ROOT .* is the root of the file system/],
    [{ JR_HOST: '203.0.113.77' }, /JR_HOST 203\.0\.113\.77 is no address of this machine/],
    [{ JR_SUBMIT_USER: 'slurm' }, /JR_SUBMIT_USER must be a user of its own/],
    [{ JR_AUTH_TOKEN_FILE: '/nowhere/token', JR_AUTH_TOKEN: '' }, /JR_AUTH_TOKEN_FILE: cannot read/],
  ] as const) {
    test(`says in one line what is wrong: ${JSON.stringify(env).slice(0, 60)}`, async () => {
      const said = await refused(env);
      assert.match(said, expected);
      assert.equal(said.trim().split('\n').length, 1, said);
    });
  }

  test('says so when the port is taken', async () => {
    const port = await freePort();
    const holder = createServer();
    await new Promise<void>((resolve) => holder.listen(port, '127.0.0.1', resolve));
    try {
      assert.match(await refused({ PORT: String(port) }), new RegExp(`PORT ${port} is in use on 127.0.0.1`));
    } finally {
      holder.close();
    }
  });

  test('refuses to run as anybody but root', () => {
    // The checkout itself may lie where others cannot go.
    const folder = mkdtempSync(join(tmpdir(), 'jr-user-'));
    chmodSync(folder, 0o755);
    copyFileSync(join(checkout, 'entrypoint.sh'), join(folder, 'entrypoint.sh'));
    const { status, stderr } = spawnSync(
      'setpriv',
      ['--reuid=65534', '--regid=65534', '--clear-groups', join(folder, 'entrypoint.sh')],
      { encoding: 'utf8' },
    );
    rmSync(folder, { recursive: true });
    assert.equal(status, 1);
    assert.match(stderr, /^jobrunner: must be run as root.*\n$/);
  });

  test('says why cgroups cannot be used', () => {
    const mount = mkdtempSync(join(tmpdir(), 'jr-cgroup-'));
    try {
      const nothing = prepareCgroups({ major: 22, minor: 5 }, mount, false);
      assert.match(nothing.possible ? '' : nothing.reason, /no cgroup controller "freezer"/);
      writeFileSync(join(mount, 'cgroup.controllers'), 'cpu pids\n');
      const poor = prepareCgroups({ major: 24, minor: 11 }, mount, false);
      assert.match(poor.possible ? '' : poor.reason, /does not offer here: cpuset, memory/);
      const old = prepareCgroups({ major: 21, minor: 8 }, mount, false);
      assert.match(old.possible ? '' : old.reason, /cgroup v2, which Slurm 21\.08 does not know/);
    } finally {
      rmSync(mount, { recursive: true, force: true });
    }
  });
});

describe('a start under odd circumstances', { timeout: 120_000 }, () => {
  test('works with a host name of 64 capitals, without GPUs, with more CPUs than there are, and makes a token', async () => {
    const name = 'H'.repeat(64);
    const appliance = await startAppliance({
      env: { JR_NUM_CPUS: '500', JR_REAL_MEM_MB: '9999999', JR_AUTH_TOKEN: 'change-me' },
      wrapper: ['unshare', '--uts', 'sh', '-c', `hostname ${name} && exec "$0" "$@"`],
    });
    try {
      const kept = join(appliance.root, 'token');
      assert.equal(statSync(kept).mode & 0o777, 0o600);
      const token = readFileSync(kept, 'utf8').trim();
      await waitUntil('the token is printed', 5000, () => appliance.output().includes(token));
      assert.match(token, /^[\w-]{32}$/);
    } finally {
      await appliance.stop();
    }
    const again = await startAppliance({ root: appliance.root, env: { JR_AUTH_TOKEN: '' } });
    try {
      const token = readFileSync(join(appliance.root, 'token'), 'utf8').trim();
      await waitUntil('it has printed', 5000, () => again.output().includes('JobRunner is ready'));
      assert.ok(!again.output().includes(token));
      assert.equal(await again.stop(), 0);
    } finally {
      await again.remove();
    }
  });

  test('runs from a folder that only root may enter, with the programs copied to where the service users can read them', async () => {
    const closed = mkdtempSync(join(tmpdir(), 'jr-closed-'));
    cpSync(join(checkout, 'dist'), join(closed, 'jobrunner/dist'), { recursive: true });
    cpSync(join(checkout, 'entrypoint.sh'), join(closed, 'jobrunner/entrypoint.sh'));
    const appliance = await startAppliance({ entrypoint: join(closed, 'jobrunner/entrypoint.sh') });
    try {
      assert.ok(existsSync(join(appliance.root, 'app/dist/api.mjs')));
      assert.equal(await appliance.stop(), 0);
    } finally {
      await appliance.remove();
      rmSync(closed, { recursive: true, force: true });
    }
  });

  test('works as the first process of a container with the rights that Docker gives', async () => {
    const keep =
      '-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+sys_chroot,+mknod,+audit_write,+setfcap';
    const appliance = await startAppliance({
      gpus: 1,
      wrapper: [
        'unshare',
        '--pid',
        '--fork',
        '--kill-child=SIGTERM',
        '--mount-proc',
        'setpriv',
        `--bounding-set=${keep}`,
        '--inh-caps=-all',
      ],
    });
    try {
      const id = submit(appliance, ['--gres=gpu:1'], 'echo "gpu=$CUDA_VISIBLE_DEVICES"');
      await waitUntil('the job has ended', 15_000, () => jobState(appliance, id) === 'COMPLETED');
      assert.equal(readFileSync(`/tmp/jr-test-${id}.out`, 'utf8'), 'gpu=0\n');
      rmSync(`/tmp/jr-test-${id}.out`);
    } finally {
      const first = processesOf(appliance.root).find(({ comm }) => comm === 's6-svscan');
      if (first !== undefined) process.kill(first.pid, 'SIGTERM');
      assert.equal(await appliance.exit, 0);
      assert.deepEqual(processesOf(appliance.root), []);
      await appliance.remove();
    }
  });

  test('confines a job by cgroups when it is told to', async (context) => {
    if (!prepareCgroups({ major: 22, minor: 5 }, '/sys/fs/cgroup', false).possible)
      return context.skip('no writable cgroups here');
    const appliance = await startAppliance({ env: { JR_USE_CGROUPS: '1' } });
    try {
      const id = submit(
        appliance,
        ['--mem=64'],
        'cat /proc/self/cgroup; nproc; tail /dev/zero | head -c 300M | tail -n 1 | wc -c; sleep 0.2',
      );
      await waitUntil('the job has ended', 20_000, () =>
        /^(OUT_OF_MEMORY|FAILED|COMPLETED)$/.test(jobState(appliance, id)),
      );
      const out = readFileSync(`/tmp/jr-test-${id}.out`, 'utf8');
      assert.match(out, /memory:.*slurm.*job_\d+/);
      assert.match(out, /devices:.*slurm.*job_\d+/);
      assert.match(out, /^1$/m, 'one core');
      assert.equal(jobState(appliance, id), 'OUT_OF_MEMORY');
      rmSync(`/tmp/jr-test-${id}.out`);
      const { node } = readFacts(appliance.root);
      assert.equal(await appliance.stop(), 0);
      assert.ok(!existsSync(`/sys/fs/cgroup/freezer/slurm_${node.nodeName}`));
    } finally {
      await appliance.remove();
    }
  });
});
