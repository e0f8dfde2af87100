import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { bucketPaths } from '../../appliance/bucket.ts';
import { childOf, folderFor, mounts, type Rig, type S3, startBucket, startS3, until } from './rig.ts';

/** Runs as a user without rights, in a process that can be killed: the mount may hang. */
const asNobody = (...command: string[]) =>
  spawnSync('setpriv', ['--reuid', '65534', '--regid', '65534', '--clear-groups', ...command], {
    encoding: 'utf8',
    timeout: 20_000,
    killSignal: 'SIGKILL',
  });

describe('a mounted bucket', () => {
  let folder: Awaited<ReturnType<typeof folderFor>>;
  let s3: S3;
  let rig: Rig;
  const mounted = (what: string) => until(what, 30, () => rig.state()?.mounted);
  const notMounted = (what: string) => until(what, 15, () => rig.state()?.mounted === false);

  before(async () => {
    folder = await folderFor('odd, name');
    await mkdir(join(folder.path, 's3'));
    s3 = await startS3(join(folder.path, 's3'), 'data');
    rig = await startBucket({ endpoint: s3.endpoint, folder: folder.path });
  });
  after(async () => {
    s3.process.kill('SIGCONT');
    await rig.stop();
    await s3.stop();
    assert.ok(!(await mounts()).includes(folder.path.split(',')[0] ?? folder.path), 'a mount was left');
    assert.equal(childOf('s3fs', folder.path), null);
    await folder.remove();
  });

  test('is told as mounted once a question through it was answered, and jobs may read and write there', async () => {
    await mounted('the mount');
    assert.deepEqual(rig.state(), { mounted: true, problem: null });
    assert.equal(
      asNobody('sh', '-c', 'echo hello > "$1/file.txt" && cat "$1/file.txt"', 'sh', rig.mount).stdout,
      'hello\n',
    );
  });

  test('keeps its keys in a file of root alone, and out of the log', async () => {
    const { password } = bucketPaths(rig.root);
    assert.equal((await stat(password)).mode & 0o777, 0o600);
    assert.ok(!rig.output().includes('S3RVER'));
    assert.ok(!execFileSync('ps', ['-eo', 'args=', '-ww'], { encoding: 'utf8' }).includes('S3RVER:S3RVER'));
  });

  test('comes back by itself when s3fs is killed, and is not called mounted in between', async () => {
    const pid = rig.s3fsPid();
    assert.ok(pid);
    const seen = rig.states.length;
    process.kill(pid, 'SIGKILL');
    await notMounted('the loss is told');
    await mounted('mounted again');
    assert.notEqual(rig.s3fsPid(), pid);
    assert.ok(rig.states.slice(seen).some((state) => !state.mounted && state.problem !== null));
    assert.equal(asNobody('cat', join(rig.mount, 'file.txt')).stdout, 'hello\n');
  });

  test('is told as gone when the provider hangs, without holding up whoever asks, and as back when it answers again', async () => {
    s3.process.kill('SIGSTOP');
    let worst = 0;
    let last = performance.now();
    const beat = setInterval(() => {
      worst = Math.max(worst, performance.now() - last - 10);
      last = performance.now();
    }, 10);
    try {
      await notMounted('the hanging provider');
      assert.match(rig.state()?.problem ?? '', /did not answer within 1.5 s|does not answer/);
      const started = performance.now();
      await readFile('/etc/hostname');
      assert.ok(performance.now() - started < 500, 'file access of this process waits for the mount');
      assert.ok(worst < 500, `the event loop stood still for ${worst} ms`);
    } finally {
      clearInterval(beat);
      s3.process.kill('SIGCONT');
    }
    await mounted('the provider answers again');
  });
});

describe('a bucket that cannot be mounted', () => {
  for (const { title, options, reason } of [
    { title: 'a wrong key', options: { keyId: 'WRONG' }, reason: /key is refused.*JR_B2_KEY_ID/ },
    { title: 'a bucket that does not exist', options: { bucket: 'nothere' }, reason: /no bucket nothere at/ },
    {
      title: 'an endpoint where nobody listens',
      options: { endpoint: 'http://127.0.0.1:9' },
      reason: /cannot be reached/,
    },
  ])
    test(`says why: ${title}; its mount point stays closed, and a stop leaves nothing`, async () => {
      const folder = await folderFor('refused');
      await mkdir(join(folder.path, 's3'));
      const s3 = await startS3(join(folder.path, 's3'), 'data');
      const rig = await startBucket({ endpoint: s3.endpoint, ...options, folder: folder.path });
      try {
        await until('the reason', 40, () => reason.test(rig.state()?.problem ?? ''));
        assert.ok(rig.states.every((state) => !state.mounted));
        await until('the end of a life', 40, () => rig.s3fsPid() === null);
        const write = asNobody('sh', '-c', 'echo x > "$1/file"', 'sh', rig.mount);
        assert.notEqual(write.status, 0);
        assert.ok(!rig.output().includes('WRONG'), 'the key id stands in the log');
      } finally {
        const started = performance.now();
        await rig.stop();
        assert.ok(performance.now() - started < 8000, 'the stop waited for the back-off');
        await s3.stop();
      }
      assert.equal(childOf('s3fs', folder.path), null);
      assert.equal(childOf('sleep', folder.path), null);
      await folder.remove();
      assert.ok(!existsSync(folder.path));
    });
});

test('a mount that a killed appliance left behind is replaced at the next start', async () => {
  const folder = await folderFor('left');
  await mkdir(join(folder.path, 's3'));
  const s3 = await startS3(join(folder.path, 's3'), 'data');
  const first = await startBucket({ endpoint: s3.endpoint, folder: folder.path });
  await until('the first mount', 30, () => first.state()?.mounted);
  const s3fs = first.s3fsPid();
  await first.kill();
  assert.equal(first.s3fsPid(), s3fs, 'the orphan still serves');
  const second = await startBucket({ endpoint: s3.endpoint, folder: folder.path });
  try {
    await until(
      'the second mount',
      30,
      () => second.state()?.mounted && second.s3fsPid() !== null && second.s3fsPid() !== s3fs,
    );
    await until('the orphan is gone', 10, () => !existsSync(`/proc/${s3fs}`));
  } finally {
    await second.stop();
    await s3.stop();
  }
  assert.ok(!(await mounts()).includes(folder.path));
  await folder.remove();
});
