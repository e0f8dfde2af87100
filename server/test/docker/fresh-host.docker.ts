import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { execa } from 'execa';
import { until } from './appliance.ts';
import { ensureBaseImage } from './base-image.ts';
import { type Engine, startEngine } from './engine.ts';

/**
 * What somebody sees who has a bare Debian 12 with Node 20 and types one command into a fresh clone. Not part of the usual run (it takes
 * minutes); it finds what entrypoint.sh forgets to install. `node --import tsx --test server/test/docker/fresh-host.docker.ts`, as root.
 */
const repository = join(import.meta.dirname, '../../..');
const name = `jobrunner-fresh-${randomBytes(4).toString('hex')}`;
let engine: Engine;
let port = 0;

before(async () => {
  engine = await startEngine();
  port = await freePort();
  const base = await ensureBaseImage(engine, 'bookworm');
  // The host's network: packages come from where this host gets them.
  await engine.docker(['run', '--detach', '--init', '--network', 'host', '--name', name, base, 'sleep', 'infinity']);
  const folder = await mkdtemp(join(tmpdir(), 'jr-fresh-'));
  try {
    await execa('git', ['clone', '--quiet', '--depth', '1', `file://${repository}`, join(folder, 'jobrunner')]);
    await engine.docker(['cp', join(folder, 'jobrunner'), `${name}:/root/jobrunner`]);
    await putNode(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

after(async () => {
  if (engine === undefined) return;
  await engine.tried(['rm', '--force', '--volumes', name]);
  await engine.stop();
});

/** This host's Node and npm, and where addons find its headers when they cannot be downloaded. */
async function putNode(folder: string): Promise<void> {
  const npm = join((await execa('npm', ['root', '--global'])).stdout.trim(), 'npm');
  await engine.docker(['exec', name, 'mkdir', '-p', '/usr/local/lib/node_modules']);
  await engine.docker(['cp', process.execPath, `${name}:/usr/local/bin/node`]);
  await engine.docker(['cp', npm, `${name}:/usr/local/lib/node_modules/npm`]);
  for (const command of ['npm', 'npx'])
    await engine.docker([
      'exec',
      name,
      'ln',
      '-s',
      `../lib/node_modules/npm/bin/${command}-cli.js`,
      `/usr/local/bin/${command}`,
    ]);
  const headers = join(dirname(dirname(process.execPath)), 'include/node');
  if (!existsSync(headers)) return;
  await engine.docker(['exec', name, 'mkdir', '-p', '/usr/local/include']);
  await engine.docker(['cp', headers, `${name}:/usr/local/include/node`]);
  const settings = await engine.tried(['exec', name, 'cat', '/root/.npmrc']);
  await writeFile(join(folder, 'npmrc'), `${settings.code === 0 ? settings.text : ''}\nnodedir=/usr/local\n`);
  await engine.docker(['cp', join(folder, 'npmrc'), `${name}:/root/.npmrc`]);
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port: free } = server.address() as AddressInfo;
  server.close();
  return free;
}

async function start(): Promise<number> {
  const started = performance.now();
  await engine.docker([
    'exec',
    '--detach',
    '--env',
    `PORT=${port}`,
    name,
    'sh',
    '-c',
    'cd /root/jobrunner && exec ./entrypoint.sh >>/root/start.log 2>&1',
  ]);
  const end = Date.now() + 480_000;
  for (;;) {
    const answer = await fetch(`http://127.0.0.1:${port}/health`).then(
      (response) => response.status,
      () => 0,
    );
    if (answer === 200) return (performance.now() - started) / 1000;
    const running = await engine.tried([
      'exec',
      name,
      'sh',
      '-c',
      'grep -lzE "[e]ntrypoint.sh|[s]6-svscan" /proc/[0-9]*/cmdline 2>/dev/null',
    ]);
    if (Date.now() > end || running.text.trim() === '')
      assert.fail(`not ready:\n${(await engine.tried(['exec', name, 'tail', '-n', '80', '/root/start.log'])).text}`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

test('on a bare Debian 12 with Node 20, ./entrypoint.sh in a fresh clone is all there is to type', async () => {
  console.log(`first start: ready after ${Math.round(await start())} s`);
  const announced = () => engine.tried(['exec', name, 'grep', '-E', 'curl .*Bearer [^ ]{16,}', '/root/start.log']);
  await until('the token is printed', 5, async () => (await announced()).code === 0);
});

test('a stop leaves no process, and the second start installs nothing and is ready in seconds', async () => {
  await engine.docker([
    'exec',
    name,
    'sh',
    '-c',
    "kill -TERM $(ps -eo pid=,args= | awk '$2 ~ /s6-svscan$/ {print $1}')",
  ]);
  const end = Date.now() + 15_000;
  const left = async () =>
    (await engine.docker(['exec', name, 'ps', '-eo', 'args=']))
      .split('\n')
      .filter((line) => !/^(ps|sleep|\S*init)/.test(line.trim()));
  while ((await left()).length > 0) {
    if (Date.now() > end) assert.fail(`left: ${(await left()).join('; ')}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  const seconds = await start();
  console.log(`second start: ready after ${seconds.toFixed(1)} s`);
  assert.ok(seconds < 10);
});
