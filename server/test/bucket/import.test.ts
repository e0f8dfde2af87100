import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type RunningAppliance, startAppliance } from '../house/appliance.ts';
import { childOf, folderFor, mounts, type S3, S3RVER_KEY, startS3, until } from './rig.ts';

interface Health {
  readonly ok: boolean;
  readonly b2_mounted: boolean;
  readonly bucket: { readonly problem: string | null };
}

describe('an appliance with a bucket', () => {
  let folder: Awaited<ReturnType<typeof folderFor>>;
  let s3: S3;
  let appliance: RunningAppliance;

  const health = async () => (await (await appliance.call('/health')).json()) as Health;
  const mounted = (is: boolean, seconds: number) =>
    until(`b2_mounted is ${is}`, seconds, async () => (await health()).b2_mounted === is);
  const put = async (key: string, body: string) =>
    assert.equal((await fetch(`${s3.endpoint}/data/${key}`, { method: 'PUT', body })).status, 200);
  const importPath = async (path: string) => {
    const response = await appliance.call('/datasets/import_path', {
      method: 'POST',
      body: new URLSearchParams({ src_path: path }),
    });
    return { status: response.status, body: (await response.json()) as Record<string, unknown> };
  };
  const mount = () => join(folder.path, 'mount');

  before(async () => {
    folder = await folderFor('whole');
    await mkdir(join(folder.path, 's3'));
    s3 = await startS3(join(folder.path, 's3'), 'data');
    appliance = await startAppliance({
      env: {
        JR_B2_ENABLE: '1',
        JR_B2_BUCKET: 'data',
        JR_B2_ENDPOINT: s3.endpoint,
        JR_B2_KEY_ID: S3RVER_KEY,
        JR_B2_APP_KEY: S3RVER_KEY,
        JR_B2_MOUNT: mount(),
      },
    });
  });
  after(async () => {
    s3.process.kill('SIGCONT');
    const code = await appliance.stop();
    await appliance.remove();
    await s3.stop();
    assert.equal(code, 0);
    assert.ok(!(await mounts()).includes(folder.path), 'a mount was left');
    assert.equal(childOf('s3fs', folder.path), null);
    await folder.remove();
  });

  test('makes a dataset of an object that somebody put into the bucket', async () => {
    const content = 'from the bucket\n'.repeat(100_000);
    await put('sets/one.txt', content);
    await mounted(true, 30);
    const { status, body } = await importPath('sets/one.txt');
    assert.equal(status, 200, JSON.stringify(body));
    assert.equal(body.sha256, createHash('sha256').update(content).digest('hex'));
    assert.equal(body.bytes, content.length);
    assert.equal((await importPath(join(mount(), 'sets/one.txt'))).status, 200);
    assert.equal((await importPath('sets/none.txt')).status, 404);
    assert.equal((await importPath('/etc/passwd')).status, 403);
    assert.equal((await importPath('../../etc/passwd')).status >= 400, true);
  });

  test('stays responsive when the provider hangs, and says that the bucket is gone', async () => {
    s3.process.kill('SIGSTOP');
    let worst = 0;
    try {
      // An import that is under way meanwhile must not hold up anybody else.
      const stuck = importPath('sets/other.txt');
      await until('b2_mounted is false', 60, async () => {
        const started = performance.now();
        const now = await health();
        worst = Math.max(worst, performance.now() - started);
        assert.equal(now.ok, true);
        return !now.b2_mounted;
      });
      assert.match((await health()).bucket.problem ?? '', /does not answer|did not answer/);
      assert.ok(worst < 100, `/health took ${worst} ms`);
      assert.equal((await importPath('sets/one.txt')).status, 503);
      s3.process.kill('SIGCONT');
      assert.ok((await stuck).status >= 400);
    } finally {
      s3.process.kill('SIGCONT');
    }
    await mounted(true, 60);
    console.log(`slowest /health while the provider hung: ${worst.toFixed(0)} ms`);
  });

  test('mounts it again when s3fs is killed', async () => {
    const pid = childOf('s3fs', mount());
    assert.ok(pid);
    process.kill(pid, 'SIGKILL');
    await mounted(false, 10);
    await mounted(true, 30);
    assert.equal((await importPath('sets/one.txt')).status, 200);
  });
});
