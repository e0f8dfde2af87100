import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { startAppliance } from '../house/appliance.ts';

const SCRIPT = fileURLToPath(new URL('./acceptance.sh', import.meta.url));

test("the reference document's acceptance blocks work as printed, PyTorch on one stand-in GPU included", async () => {
  const appliance = await startAppliance({ gpus: 1 });
  try {
    const { stdout } = await promisify(execFile)(SCRIPT, {
      env: { ...process.env, JR_BASE_URL: appliance.baseUrl, JR_AUTH_TOKEN: appliance.token },
    });
    assert.match(stdout, /^\d+ passed, 0 failed$/m);
    assert.doesNotMatch(stdout, /gpus=0/);
  } finally {
    await appliance.remove();
  }
});
