import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { execa, type Options } from 'execa';

/**
 * A Docker engine to test with: the one that answers, else one of our own (own socket, own folder, nothing in the host's firewall), which
 * is stopped and removed at the end.
 */
export interface Engine {
  docker(args: readonly string[], options?: Options): Promise<string>;
  /** As docker, but tells the exit code instead of throwing. */
  tried(args: readonly string[]): Promise<{ readonly code: number; readonly text: string }>;
  stop(): Promise<void>;
}

export async function install(command: string, aptPackage: string): Promise<void> {
  if (await onPath(command)) return;
  console.log(`installing ${aptPackage}`);
  await execa('apt-get', ['update', '-qq'], { timeout: 300_000 });
  await execa('apt-get', ['install', '-y', '-qq', '--no-install-recommends', aptPackage], {
    env: { DEBIAN_FRONTEND: 'noninteractive' },
    timeout: 600_000,
  });
}

const onPath = async (command: string) =>
  (await execa('sh', ['-c', 'command -v "$1"', 'sh', command], { reject: false })).exitCode === 0;

function client(host: string | null): Pick<Engine, 'docker' | 'tried'> {
  const env = host === null ? {} : { DOCKER_HOST: host };
  const run = (args: readonly string[], options: Options) =>
    execa('docker', [...args], {
      all: true,
      timeout: 120_000,
      stdin: 'ignore',
      ...options,
      env: { ...env, ...options.env },
    });
  return {
    docker: async (args, options = {}) => String((await run(args, options)).stdout ?? ''),
    async tried(args) {
      const result = await run(args, { reject: false });
      return { code: result.exitCode ?? -1, text: String(result.all ?? '') };
    },
  };
}

async function mountsBelow(folder: string): Promise<readonly string[]> {
  const lines = (await readFile('/proc/self/mounts', 'utf8')).split('\n');
  return lines.map((line) => line.split(' ')[1] ?? '').filter((place) => place.startsWith(`${folder}/`));
}

export async function startEngine(): Promise<Engine> {
  await install('dockerd', 'docker.io');
  const present = client(null);
  if ((await present.tried(['info', '--format', '{{.ServerVersion}}'])).code === 0)
    return { ...present, stop: async () => {} };

  // Not below /tmp, which may be a memory file system: images are large and overlay wants a disk.
  const folder = await mkdtemp('/var/tmp/jr-docker-');
  const host = `unix://${join(folder, 'docker.sock')}`;
  const hadBridge = 'docker0' in networkInterfaces();
  // Containers need no way out (images are built with the host's network) and published ports go through docker-proxy.
  const daemon = execa(
    'dockerd',
    [
      '--data-root',
      join(folder, 'data'),
      '--exec-root',
      join(folder, 'exec'),
      '--pidfile',
      join(folder, 'pid'),
      '--host',
      host,
    ]
      .concat([
        '--bip',
        '172.29.77.1/24',
        '--iptables=false',
        '--ip6tables=false',
        '--ip-masq=false',
        '--ip-forward=false',
      ])
      .concat(['--shutdown-timeout', '5']),
    { stdin: 'ignore', stdout: 'ignore', stderr: { file: join(folder, 'log') }, reject: false, cleanup: true },
  );
  const engine = client(host);
  const stop = async () => {
    daemon.kill('SIGTERM');
    await daemon;
    // dockerd leaves the host's network namespace mounted in there.
    for (const place of await mountsBelow(folder)) await execa('umount', ['--lazy', place], { reject: false });
    if (!hadBridge) await execa('ip', ['link', 'delete', 'docker0'], { reject: false });
    await rm(folder, { recursive: true, force: true });
  };
  const end = Date.now() + 60_000;
  while ((await engine.tried(['info'])).code !== 0) {
    if (Date.now() > end || daemon.exitCode !== null) {
      const log = existsSync(join(folder, 'log'))
        ? (await execa('tail', ['-n', '15', join(folder, 'log')])).stdout
        : '';
      await stop();
      throw new Error(`dockerd does not start here:\n${log}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  return { ...engine, stop };
}
