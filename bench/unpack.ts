import { execFileSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { chmodSync, chownSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ArchiveKind } from '../server/core/dataset.ts';
import { emptyStaging } from '../server/parent/ops/staging-folder.ts';
import { unpackOperation } from '../server/parent/ops/unpack.ts';
import { makeStaging } from '../server/storage/staging.ts';
import { bundles } from '../server/test/house/bundle.ts';
import { dataRoot } from '../server/test/house/data-appliance.ts';
import type { BenchRow } from './row.ts';
import { interleaved, randomFile } from './side-by-side.ts';

interface Case {
  readonly name: string;
  readonly archive: string;
  readonly kind: ArchiveKind;
  /** Argv of the raw tool, run in an empty folder. */
  readonly raw: readonly string[];
}

/**
 * The root parent's unpacking, from asking to files on the disk (child processes, checks and `sync -f` included), against the raw tool
 * and the same `sync -f`. Of the small files nothing is removed between the rounds: ext4 is slow to give out an inode that was freed a
 * moment ago. The large ones are, or the rounds would measure how fast the machine finds memory for its page cache.
 */
export async function run(): Promise<BenchRow[]> {
  const work = mkdtempSync(join(tmpdir(), 'jr-bench-unpack-'));
  chmodSync(work, 0o755);
  const root = dataRoot();
  // In this process the API's user is whoever runs the bench.
  chownSync(root.paths.root, 0, 0);
  mkdirSync(root.paths.staging, { mode: 0o711 });
  const unpack = unpackOperation({
    paths: root.paths,
    nodeBinary: process.execPath,
    unpackProgram: join(await bundles(), 'unpack.mjs'),
    apiUid: 0,
    apiGid: 0,
    minFreeBytes: 0,
    importRoots: [],
    bucketMount: null,
    bucketProblem: () => null,
  });
  const ours = async (archive: string, kind: ArchiveKind) => {
    const staging = await makeStaging(root.paths);
    copyFileSync(archive, staging.upload);
    execFileSync('sync', ['-f', staging.upload]);
    const request = { stagingId: staging.id, kind, maxBytes: 8 * 1024 ** 3, maxEntries: 1_000_000, minFreeBytes: 0 };
    return () => unpack(request, new AbortController().signal);
  };
  try {
    const rows: BenchRow[] = [];
    for (const { name, archive, kind, raw } of makeCases(work)) {
      const rounds = kind === 'tar' ? 3 : 2;
      let next = await ours(archive, kind);
      let round = 0;
      const seconds = await interleaved(rounds, {
        raw: async () => {
          const folder = join(work, `raw-${kind}-${round}`);
          mkdirSync(folder);
          const [program = '', ...argv] = raw;
          execFileSync(program, argv, { cwd: folder });
          execFileSync('sync', ['-f', '.'], { cwd: folder });
          return () => (kind === 'tar' ? rmSync(folder, { recursive: true }) : undefined);
        },
        ours: async () => {
          await next();
          round += 1;
          return async () => {
            if (kind === 'tar') emptyStaging(root.paths, { uid: 0, gid: 0 });
            next = await ours(archive, kind);
          };
        },
      });
      const [our = Number.NaN, their = Number.NaN] = [seconds.ours, seconds.raw];
      rows.push({
        name,
        ours: our,
        raw: their,
        ratio: their / our,
        unit: 's',
        note: `against ${raw[0]}, both with sync; at least 0.7`,
      });
    }
    return rows;
  } finally {
    rmSync(work, { recursive: true, force: true });
    root.remove();
  }
}

function makeCases(work: string): readonly Case[] {
  const big = join(work, 'big');
  mkdirSync(big);
  randomFile(join(big, 'data.bin'), 1024 ** 3);
  execFileSync('tar', ['-cf', join(work, 'big.tar'), '-C', big, 'data.bin']);
  rmSync(big, { recursive: true });
  const small = join(work, 'small');
  smallFiles(small, 20_000);
  execFileSync('tar', ['-czf', join(work, 'small.tar.gz'), '-C', small, '.']);
  execFileSync('zip', ['-qr', join(work, 'small.zip'), '.'], { cwd: small });
  const cases: readonly Case[] = [
    {
      name: 'unpack a tar of one 1 GiB file',
      archive: join(work, 'big.tar'),
      kind: 'tar',
      raw: ['tar', '-xf', join(work, 'big.tar')],
    },
    {
      name: 'unpack a tar.gz of 20,000 files',
      archive: join(work, 'small.tar.gz'),
      kind: 'tar.gz',
      raw: ['tar', '-xzf', join(work, 'small.tar.gz')],
    },
    {
      name: 'unpack a zip of 20,000 files',
      archive: join(work, 'small.zip'),
      kind: 'zip',
      raw: ['unzip', '-q', join(work, 'small.zip')],
    },
  ];
  return cases.filter(({ archive }) => statSync(archive).size > 0);
}

/** Files of 1 to 7 KB of words, spread over a tree of folders up to five deep. */
function smallFiles(top: string, files: number): void {
  const folders = Array.from({ length: 400 }, (_, i) =>
    join(top, ...Array.from({ length: randomInt(0, 5) }, (_, depth) => `d${i % (20 + depth)}`), `d${i}`),
  );
  for (const folder of folders) mkdirSync(folder, { recursive: true });
  for (let i = 0; i < files; i++) {
    const words = Array.from({ length: randomInt(250, 1750) }, () => randomInt(1000).toString(36).padStart(3, 'w'));
    writeFileSync(join(folders[randomInt(folders.length)] ?? top, `${i}.txt`), words.join(' '));
  }
}
