import { copyFile, mkdir, mkdtemp, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { type Engine, install } from './engine.ts';

const WEEK_MS = 7 * 86_400_000;
const CACHE = join(process.env.XDG_CACHE_HOME ?? '/var/cache', 'jobrunner-tests');

/**
 * The base image: pulled where a registry answers, else made by debootstrap from the mirror that this host uses, with this host's ways to
 * the package registries (mirror, proxy, certificates) put inside. It is kept for a week, because making it takes half a minute.
 */
export async function ensureBaseImage(engine: Engine, suite: 'trixie' | 'bookworm'): Promise<string> {
  const tag = `debian:${suite}-slim`;
  if ((await engine.tried(['image', 'inspect', tag])).code === 0) return tag;
  if ((await engine.tried(['pull', '--quiet', tag])).code === 0) return tag;
  const archive = join(CACHE, `${suite}.tar`);
  const age = await stat(archive).then(
    ({ mtimeMs }) => Date.now() - mtimeMs,
    () => Number.POSITIVE_INFINITY,
  );
  if (age > WEEK_MS) await makeArchive(suite, archive);
  await engine.docker(['import', '--change', 'CMD ["bash"]', archive, tag]);
  return tag;
}

async function makeArchive(suite: string, archive: string): Promise<void> {
  await install('debootstrap', 'debootstrap');
  const { main, security } = await mirrors();
  console.log(`no registry answers: making ${suite} by debootstrap`);
  await mkdir(CACHE, { recursive: true, mode: 0o700 });
  const folder = await mkdtemp(join(tmpdir(), 'jr-base-'));
  try {
    await execa('debootstrap', ['--variant=minbase', '--include=ca-certificates', suite, folder, main], {
      timeout: 300_000,
    });
    const write = (path: string, lines: readonly string[]) => writeFile(join(folder, path), `${lines.join('\n')}\n`);
    await write('etc/apt/sources.list', [
      `deb ${main} ${suite} main`,
      ...(security === null ? [] : [`deb ${security} ${suite}-security main`]),
    ]);
    await write('etc/apt/apt.conf.d/99host', await aptSettings());
    await write('root/.npmrc', [
      `registry=${(await execa('npm', ['config', 'get', 'registry'])).stdout.trim()}`,
      'cafile=/etc/ssl/certs/ca-certificates.crt',
    ]);
    // As the slim images do.
    await write('etc/dpkg/dpkg.cfg.d/slim', [
      'path-exclude /usr/share/doc/*',
      'path-include /usr/share/doc/*/copyright',
      'path-exclude /usr/share/man/*',
      'path-exclude /usr/share/locale/*',
      'path-exclude /usr/share/info/*',
    ]);
    const own = '/usr/local/share/ca-certificates';
    for (const name of await readdir(own).catch(() => []))
      if (name.endsWith('.crt')) await copyFile(join(own, name), join(folder, own, name));
    await execa('chroot', [folder, 'update-ca-certificates']);
    const slimmed = [
      'var/cache/apt',
      'var/lib/apt/lists',
      'usr/share/man',
      'usr/share/locale',
      'usr/share/info',
      'var/log/bootstrap.log',
    ];
    for (const path of slimmed) await rm(join(folder, path), { recursive: true, force: true });
    await mkdir(join(folder, 'var/lib/apt/lists/partial'), { recursive: true });
    await mkdir(join(folder, 'var/cache/apt/archives/partial'), { recursive: true });
    await execa('find', [join(folder, 'usr/share/doc'), '-type', 'f', '!', '-name', 'copyright', '-delete']);
    await execa('tar', ['-C', folder, '-cf', `${archive}.new`, '.']);
    await rename(`${archive}.new`, archive);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The mirrors of this host, whichever way they are written down. */
async function mirrors(): Promise<{ readonly main: string; readonly security: string | null }> {
  const list = async () =>
    (await execa('apt-get', ['indextargets', '--format', '$(REPO_URI)', 'Created-By: Packages'])).stdout;
  let text = await list();
  if (text.trim() === '') {
    await execa('apt-get', ['update', '-qq'], { timeout: 300_000 });
    text = await list();
  }
  const all = [...new Set(text.split('\n').map((uri) => uri.replace(/\/+$/, '')))];
  const main = all.find((uri) => uri.endsWith('/debian'));
  if (main === undefined) throw new Error('this host knows no Debian mirror, and no registry has the base image');
  return { main, security: all.find((uri) => uri.endsWith('/debian-security')) ?? null };
}

async function aptSettings(): Promise<readonly string[]> {
  const { stdout } = await execa('apt-config', ['dump']);
  return stdout.split('\n').filter((line) => /^Acquire::(Check-Valid-Until|Check-Date|https?::Proxy) "/.test(line));
}
