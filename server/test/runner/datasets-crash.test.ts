import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { after, test } from 'node:test';
import type { Step } from '../../runner/datasets.ts';
import { type DataAppliance, dataRoot, leftInStaging, startData } from '../house/data-appliance.ts';
import { tarOf } from '../house/tar-maker.ts';

const root = dataRoot();
after(() => root.remove());

/** Different content for each case, so that none finds the dataset of another. */
const archive = () => tarOf({ name: 'data/a', content: randomBytes(3000) }, { name: 'data/b', content: 'b' });
const file = () => randomBytes(5000);

async function uploadAgain(content: Buffer, name: string): Promise<void> {
  const appliance = await startData(root.paths.root);
  try {
    assert.deepEqual(leftInStaging(root.paths.root), [], 'the next start leaves staging empty');
    await assertWhole(appliance);
    const response = await appliance.upload(content, name);
    assert.equal(response.status, 200, await response.clone().text());
    const { sha256 } = (await response.json()) as { sha256: string };
    const exists = await (await appliance.fetch(`/datasets/exists/${sha256}`)).text();
    assert.match(exists, /"exists": true/);
    assert.deepEqual(leftInStaging(root.paths.root), []);
    await assertWhole(appliance);
  } finally {
    await appliance.stop();
  }
}

/** What the API shows and what is on the disk are the same datasets, each with all its bytes. */
async function assertWhole(appliance: DataAppliance): Promise<void> {
  const { datasets } = (await (await appliance.fetch('/datasets?limit=1000')).json()) as {
    datasets: { sha256: string; bytes: number; files: number }[];
  };
  assert.deepEqual(datasets.map(({ sha256 }) => sha256).sort(), readdirSync(root.paths.datasets).sort());
  for (const { sha256, bytes, files } of datasets) {
    const sizes = execFileSync('find', [root.paths.dataset(sha256), '-type', 'f', '-printf', '%s\n'], {
      encoding: 'utf8',
    })
      .trim()
      .split('\n')
      .map(Number);
    assert.equal(sizes.length, files);
    assert.equal(
      sizes.reduce((sum, size) => sum + size, 0),
      bytes,
    );
  }
}

const STEPS: readonly Step[] = ['staged', 'received', 'unpacked', 'ready', 'published', 'recorded', 'cleaned'];
for (const step of STEPS) {
  test(`killed when an archive is ${step}: nothing half-made is visible, and the same upload then succeeds`, {
    timeout: 30_000,
  }, async () => {
    const content = archive();
    const dying = await startData(root.paths.root, { dieAt: step });
    await assert.rejects(dying.upload(content, 'x.tar').then((response) => response.text()));
    await dying.gone;
    await uploadAgain(content, 'x.tar');
  });
  if (step === 'unpacked') continue;
  test(`killed when a file is ${step}: nothing half-made is visible, and the same upload then succeeds`, {
    timeout: 30_000,
  }, async () => {
    const content = file();
    const dying = await startData(root.paths.root, { dieAt: step });
    await assert.rejects(dying.upload(content, 'x.bin').then((response) => response.text()));
    await dying.gone;
    await uploadAgain(content, 'x.bin');
  });
}

test('killed in the middle of the bytes: the next start is clean', { timeout: 30_000 }, async () => {
  const appliance = await startData(root.paths.root);
  const socket = await halfAnUpload(appliance);
  await until(() => leftInStaging(root.paths.root).length === 1);
  process.kill(appliance.apiPid, 'SIGKILL');
  await appliance.gone;
  socket.destroy();
  await uploadAgain(file(), 'x.bin');
});

for (const victim of ['parentPid', 'apiPid'] as const) {
  test(`${victim === 'parentPid' ? 'the root parent' : 'the API'} is killed while an archive is unpacked: no process and no byte is left`, {
    timeout: 60_000,
  }, async () => {
    const content = tarOf(
      ...Array.from({ length: 12_000 }, (_, i) => ({
        name: `${randomBytes(3).toString('hex')}/${i}`,
        content: String(i),
      })),
    );
    const appliance = await startData(root.paths.root);
    const answer = appliance.upload(content, 'x.tar').then((response) => response.text());
    answer.catch(() => {});
    const tree = () =>
      leftInStaging(root.paths.root)
        .map((id) => root.paths.stagingTree(id))
        .find((path) => existsSync(path));
    await until(() => {
      const path = tree();
      return path !== undefined && readdirSync(path).length > 50;
    });
    process.kill(appliance[victim], 'SIGKILL');
    await assert.rejects(answer);
    await appliance.gone;
    await until(() => unpackers().length === 0);
    await uploadAgain(content, 'x.tar');
  });
}

test('a client that goes away leaves nothing in staging', { timeout: 30_000 }, async () => {
  const appliance = await startData(root.paths.root);
  try {
    const socket = await halfAnUpload(appliance);
    await until(() => leftInStaging(root.paths.root).length === 1);
    socket.destroy();
    await until(() => leftInStaging(root.paths.root).length === 0);
    await assertWhole(appliance);
  } finally {
    await appliance.stop();
  }
});

async function halfAnUpload(appliance: DataAppliance) {
  const socket = connect(Number(new URL(appliance.url).port), '127.0.0.1');
  socket.on('error', () => {});
  await new Promise<void>((resolve) => socket.once('connect', () => resolve()));
  socket.write(
    'POST /datasets/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nContent-Length: 10000000\r\n',
  );
  socket.write(
    'Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n',
  );
  socket.write(Buffer.alloc(200_000, 1));
  return socket;
}

/** Processes whose user is one of the unpackers'. */
function unpackers(): readonly string[] {
  return readdirSync('/proc').filter((pid) => {
    try {
      const uid = /^\d+$/.test(pid) ? statSync(`/proc/${pid}`).uid : 0;
      return uid >= 65_000 && uid <= 65_519;
    } catch {
      return false;
    }
  });
}

async function until(condition: () => boolean): Promise<void> {
  const end = Date.now() + 20_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`waited in vain for ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
