import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { dataRoot, startData } from '../server/test/house/data-appliance.ts';
import { watchMemory } from './memory.ts';
import type { BenchRow } from './row.ts';
import { interleaved, randomFile } from './side-by-side.ts';

const GIB = 1024 ** 3;

/** An upload of 1 GiB that stays one file, against what must be done at least: its bytes on the disk, and their SHA-256. */
export async function run(): Promise<BenchRow[]> {
  const work = mkdtempSync(join(tmpdir(), 'jr-bench-upload-'));
  const source = join(work, 'source.bin');
  randomFile(source, GIB);
  try {
    const { ours, raw, peak } = await measure(work, source);
    return [
      {
        name: 'upload of 1 GiB',
        ours: GIB / 1024 ** 2 / ours,
        raw: GIB / 1024 ** 2 / raw,
        ratio: raw / ours,
        unit: 'MiB/s',
        note: 'curl -F against dd conv=fsync, then sha256sum; at least 0.85',
      },
      {
        name: 'memory of the API during uploads',
        ours: peak,
        raw: 200,
        ratio: peak / 200,
        unit: 'MiB',
        note: 'peak RSS; at most 200',
      },
    ];
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

async function measure(work: string, source: string): Promise<{ ours: number; raw: number; peak: number }> {
  const root = dataRoot();
  const appliance = await startData(root.paths.root);
  const memory = watchMemory({ api: appliance.apiPid });
  try {
    const seconds = await interleaved(3, {
      raw: async () => {
        const copy = join(work, 'copy');
        execFileSync('dd', [`if=${source}`, `of=${copy}`, 'bs=1M', 'conv=fsync', 'status=none']);
        execFileSync('sha256sum', [copy]);
        return () => rmSync(copy);
      },
      ours: async () => {
        const form = ['-F', `file=@${source};filename=data.bin`, `${appliance.url}/datasets/upload`];
        const answer = execFileSync('curl', ['-sS', '-H', 'Authorization: Bearer secret', ...form], {
          encoding: 'utf8',
        });
        const { sha256 } = JSON.parse(answer) as { sha256: string };
        return () => appliance.fetch(`/datasets/${sha256}`, { method: 'DELETE' });
      },
    });
    return { ours: seconds.ours ?? Number.NaN, raw: seconds.raw ?? Number.NaN, peak: memory.stop().api ?? Number.NaN };
  } finally {
    memory.stop();
    await appliance.stop();
    root.remove();
  }
}
