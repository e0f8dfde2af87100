import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { type DataAppliance, dataRoot, leftInStaging, startData } from '../house/data-appliance.ts';
import { GENEROUS } from '../house/data-settings.ts';
import { ESCAPE, HOSTILE_LIMITS, type HostileArchive, hostileArchives } from '../house/hostile-archives.ts';

const root = dataRoot();
let appliance: DataAppliance;

before(async () => {
  appliance = await startData(root.paths.root, { limits: { ...GENEROUS, ...HOSTILE_LIMITS } });
});
after(async () => {
  await appliance.stop();
  root.remove();
});

test('two hundred hostile archives are each refused whole, with a sentence, and leave nothing anywhere', {
  timeout: 240_000,
}, async () => {
  const archives = hostileArchives();
  assert.ok(archives.length >= 200, `only ${archives.length} hostile archives`);
  const largest = watchLargest();
  const wrong: string[] = [];
  const queue = [...archives];
  const work = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const fault = await faultOf(next);
      if (fault !== null) wrong.push(`${next.file} with ${next.what}: ${fault}`);
    }
  };
  await Promise.all([work(), work(), work()]);
  assert.deepEqual(wrong, []);
  assert.deepEqual(leftInStaging(root.paths.root), []);
  assert.deepEqual(readdirSync(root.paths.datasets), []);
  for (const place of ['/tmp', '/', root.paths.root, root.paths.staging, process.cwd()]) {
    assert.ok(!existsSync(`${place}/${ESCAPE}`), `something was written to ${place}`);
  }
  assert.ok((await largest.stop()) <= HOSTILE_LIMITS.unpackedBytes, 'an archive took more space than its limit');
  const alive = await appliance.upload(Buffer.from('still here'), 'a.txt');
  assert.equal(alive.status, 200);
});

async function faultOf({ content, file }: HostileArchive): Promise<string | null> {
  const response = await appliance.upload(content, file);
  const body = await response.text();
  if (response.status !== 422) return `${response.status} ${body}`;
  const { code, detail } = JSON.parse(body) as { code: string; detail: string };
  if (code !== 'archive_refused' || detail.length < 15 || detail.includes(root.paths.root)) return body;
  if (process.env.SHOW_REFUSALS) console.log(detail);
  return null;
}

/** The largest file that any unpacking holds, looked at again and again. */
function watchLargest(): { stop(): Promise<number> } {
  let largest = 0;
  let stopped = false;
  const looking = (async () => {
    while (!stopped) {
      for (const id of leftInStaging(root.paths.root)) {
        const found = await stat(`${root.paths.stagingTree(id)}/zeros`).catch(() => null);
        largest = Math.max(largest, found?.size ?? 0);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return largest;
  })();
  return {
    stop: () => {
      stopped = true;
      return looking;
    },
  };
}
