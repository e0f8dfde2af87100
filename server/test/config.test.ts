import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ConfigError, readSettings, type SETTINGS } from '../config.ts';

/** For each setting, values that a tired user might write. */
const BAD: Readonly<Record<keyof typeof SETTINGS, readonly string[]>> = {
  JR_AUTH_TOKEN: ['with blank', 'new\nline', 'x'.repeat(513), 'schlüssel'],
  JR_ROOT: ['relative', '/a/../b', '/a\nb', '~/x'],
  PORT: ['0', '65536', '-1', '8080a', '8080.5', '0x50'],
  JR_HOST: ['a b', 'http://x', ';reboot'],
  JR_NUM_GPUS: ['-1', 'two', '257', '1.5', 'NaN', '$(id)'],
  JR_NUM_CPUS: ['0', '-4', '65534', 'all'],
  JR_REAL_MEM_MB: ['0', '64G', '1e6', '-1'],
  JR_GPU_TYPE: ['rtx 4090', 'a,b', '-x', 'x:1', 'a\nb'],
  JR_MAX_TIME: ['forever', '-1', '1 day', '10:00\n', '0'],
  JR_USE_CGROUPS: ['yes', 'true', '2', ' 1'],
  JR_SUBMIT_USER: ['root', '0', 'A B', 'x;y', '../x'],
  JR_GPU_DEV_PREFIX: ['dev/nvidia', '/dev/../etc/x'],
  JR_HOSTNAME: ['a_b', '-a', 'a-', 'a.b', 'x'.repeat(65), 'a b'],
  JR_B2_ENABLE: ['yes', 'on'],
  JR_B2_BUCKET: ['a', 'a b', 'a,allow_root', '-o'],
  JR_B2_ENDPOINT: ['s3.example.org', 'ftp://x', 'http://a,b', 'http://a b'],
  JR_B2_KEY_ID: ['a:b', 'a b'],
  JR_B2_APP_KEY: ['a b', 'a\nb'],
  JR_B2_MOUNT: ['mnt', '/mnt/../etc'],
  JR_IMPORT_ROOTS: ['relative', '/a:b', '/a:/b/../c'],
  JR_MAX_UPLOAD_BYTES: ['1G', '-1', '1e9'],
  JR_MAX_UNPACKED_BYTES: ['many', '1.5'],
  JR_MAX_UNPACK_RATIO: ['0', '-2', '1000001'],
  JR_MAX_ENTRIES: ['0', 'x', '100000001'],
  JR_MIN_FREE_BYTES: ['-1', '5%'],
};

for (const [name, values] of Object.entries(BAD)) {
  test(`${name}: a bad value is refused in one line that names it`, () => {
    for (const value of values) {
      assert.throws(
        () => readSettings({ [name]: value }),
        (error: unknown) =>
          error instanceof ConfigError && error.message.startsWith(`${name} `) && !error.message.includes('\n'),
        JSON.stringify(value),
      );
    }
  });
}

test('a bad secret is not repeated in the message', () => {
  assert.throws(
    () => readSettings({ JR_AUTH_TOKEN: 'my secret token' }),
    (error: unknown) => error instanceof ConfigError && !error.message.includes('secret token'),
  );
});

test('a secret may come from a file, but not from two places', () => {
  const folder = mkdtempSync(join(tmpdir(), 'jr-config-'));
  try {
    const file = join(folder, 'token');
    writeFileSync(file, 'abc123\n');
    assert.equal(readSettings({ JR_AUTH_TOKEN_FILE: file }).settings.JR_AUTH_TOKEN, 'abc123');
    assert.throws(() => readSettings({ JR_AUTH_TOKEN_FILE: file, JR_AUTH_TOKEN: 'x' }), /are both set/);
    assert.throws(() => readSettings({ JR_AUTH_TOKEN_FILE: join(folder, 'none') }), /cannot read .*ENOENT/);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('an unknown JR_ name is warned about, an empty one is as if it were not set', () => {
  const { settings, warnings } = readSettings({
    JR_NUM_GPU: '1',
    JR_NUM_GPUS: '',
    JR_BASE_URL: 'x',
    JR_AUTH_TOKEN: 'change-me',
  });
  assert.deepEqual(warnings, ['JR_NUM_GPU is set but JobRunner knows no such variable']);
  assert.equal(settings.JR_NUM_GPUS, null);
  assert.equal(settings.JR_AUTH_TOKEN, null);
});
