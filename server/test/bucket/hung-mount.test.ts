import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, mkdirSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { AppError } from '../../core/errors.ts';
import type { DataContext } from '../../parent/ops/data-context.ts';
import { fetchOperation } from '../../parent/ops/fetch.ts';
import { makeStaging } from '../../storage/staging.ts';
import { bundles } from '../house/bundle.ts';
import { dataRoot } from '../house/data-appliance.ts';
import { childOf, folderFor, mounts, type Rig, type S3, startBucket, startS3, until } from './rig.ts';

const STALL_LIMIT_MS = 1000;
/** What starting and ending a process may take on a busy machine, on top of the limit. */
const SLACK_MS = 2000;

describe('an import from a mount that hangs', () => {
  let folder: Awaited<ReturnType<typeof folderFor>>;
  let s3: S3;
  let rig: Rig;
  let root: ReturnType<typeof dataRoot>;
  let ctx: DataContext;
  let local: string;

  const put = async (key: string) =>
    assert.equal((await fetch(`${s3.endpoint}/data/${key}`, { method: 'PUT', body: 'in the bucket\n' })).status, 200);
  const fetchFrom = async (source: string) => {
    const staging = await makeStaging(root.paths);
    const request = { stagingId: staging.id, source, maxBytes: 1_000_000 };
    const started = performance.now();
    const result = await fetchOperation(ctx, STALL_LIMIT_MS)(request, new AbortController().signal).catch(
      (error: unknown) => error,
    );
    const left = readdirSync(root.paths.stagingFolder(staging.id));
    return { result, left, milliseconds: performance.now() - started };
  };
  const children = () =>
    execFileSync('ps', ['-eo', 'pid=,args=', '-ww'], { encoding: 'utf8' })
      .split('\n')
      .filter((line) => line.includes(ctx.unpackProgram));
  /** Imports from the hanging mount and then, while it still hangs, from a disk that does not. */
  const importMeanwhile = async (key: string) => {
    let worst = 0;
    let last = performance.now();
    const beat = setInterval(() => {
      worst = Math.max(worst, performance.now() - last - 10);
      last = performance.now();
    }, 10);
    try {
      const stuck = await fetchFrom(join(rig.mount, key));
      // Only now: whatever the kernel had remembered of the mount is out of date.
      const free = await fetchFrom(join(local, 'file.txt'));
      assert.ok(stuck.result instanceof AppError, JSON.stringify(stuck.result));
      assert.equal(stuck.result.code, 'unavailable');
      assert.match(stuck.result.message, /hangs, try again/);
      assert.ok(stuck.milliseconds >= STALL_LIMIT_MS && stuck.milliseconds < STALL_LIMIT_MS + SLACK_MS);
      assert.deepEqual(stuck.left, []);
      assert.ok('sha256' in (free.result as object), `the other import was held up: ${free.result}`);
      assert.deepEqual(free.left, ['upload']);
      assert.ok(worst < 500, `the event loop stood still for ${worst} ms`);
    } finally {
      clearInterval(beat);
    }
  };

  before(async () => {
    folder = await folderFor('hung');
    await mkdir(join(folder.path, 's3'));
    local = join(folder.path, 'local');
    mkdirSync(local);
    writeFileSync(join(local, 'file.txt'), 'on the disk\n');
    chmodSync(local, 0o755);
    s3 = await startS3(join(folder.path, 's3'), 'data');
    rig = await startBucket({ endpoint: s3.endpoint, folder: folder.path });
    root = dataRoot();
    mkdirSync(root.paths.staging, { mode: 0o711 });
    ctx = {
      paths: root.paths,
      nodeBinary: process.execPath,
      unpackProgram: join(await bundles(), 'unpack.mjs'),
      apiUid: 0,
      apiGid: 0,
      minFreeBytes: 0,
      importRoots: [rig.mount, local],
      bucketMount: rig.mount,
      // The probe notices a hanging mount after a while; here the import is faster than it.
      bucketProblem: () => null,
    };
    await until('the mount', 15, () => rig.state()?.mounted);
  });
  after(async () => {
    const s3fs = rig.s3fsPid();
    if (s3fs !== null) process.kill(s3fs, 'SIGCONT');
    s3.process.kill('SIGCONT');
    await rig.stop();
    if ((await mounts()).includes(rig.mount)) execFileSync('umount', ['-l', rig.mount]);
    await s3.stop();
    assert.equal(childOf('s3fs', folder.path), null);
    root.remove();
    await folder.remove();
  });

  test('works while the mount answers', { timeout: 10_000 }, async () => {
    await put('before.txt');
    const { result } = await fetchFrom(join(rig.mount, 'before.txt'));
    assert.deepEqual(result, {
      name: 'before.txt',
      bytes: 14,
      sha256: createHash('sha256').update('in the bucket\n').digest('hex'),
    });
  });

  test('ends at the limit when s3fs itself stands still, leaves nothing and holds up nobody', {
    timeout: 60_000,
  }, async () => {
    await put('standing.txt');
    const s3fs = rig.s3fsPid();
    assert.ok(s3fs);
    process.kill(s3fs, 'SIGSTOP');
    try {
      await importMeanwhile('standing.txt');
      // Its question was still in the kernel's queue, so that it could be killed.
      await until('the copying child is gone', 5, () => children().length === 0);
    } finally {
      process.kill(s3fs, 'SIGCONT');
    }
    await until('the mount answers again', 40, () => rig.state()?.mounted);
  });

  test('ends at the limit when the provider stops answering, and its child as soon as the kernel lets go of it', {
    timeout: 60_000,
  }, async () => {
    await put('waiting.txt');
    s3.process.kill('SIGSTOP');
    try {
      await importMeanwhile('waiting.txt');
    } finally {
      s3.process.kill('SIGCONT');
    }
    await until('the copying child is gone', 10, () => children().length === 0);
    assert.deepEqual(openBelow(root.paths.staging), []);
  });
});

/** What this process still has open below `folder`. */
function openBelow(folder: string): readonly string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${fd}`);
      return path.startsWith(folder) ? [path] : [];
    } catch {
      // The descriptor that listed the folder is closed by now.
      return [];
    }
  });
}
