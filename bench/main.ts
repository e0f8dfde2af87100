/**
 * `npm run bench [part …]`: side by side with raw tools in one run, as ratios; printed as a table and saved as JSON in bench/results/.
 * Runs as root on an otherwise idle machine and takes some minutes.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import type { BenchRow } from './row.ts';

const PARTS: Readonly<Record<string, () => Promise<{ run: () => Promise<BenchRow[]> }>>> = {
  jobs: () => import('./jobs.ts'),
  upload: () => import('./upload.ts'),
  unpack: () => import('./unpack.ts'),
  outputs: () => import('./outputs.ts'),
};

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !Object.hasOwn(PARTS, name));
if (unknown.length > 0) {
  console.error(`no such part: ${unknown.join(', ')} (there are ${Object.keys(PARTS).join(', ')})`);
  process.exit(2);
}
const missing = ['curl', 'tar', 'unzip', 'wrk', 'zip'].filter(
  (tool) => spawnSync(tool, ['--version']).error !== undefined,
);
if (missing.length > 0) {
  console.error(`bench: these tools are needed to compare with: apt-get install ${missing.join(' ')}`);
  process.exit(2);
}
const rows: BenchRow[] = [];
for (const [name, load] of Object.entries(PARTS)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  console.error(`bench: ${name} …`);
  rows.push(...(await (await load()).run()));
}

const figure = (value: number | null) =>
  value === null ? '–' : value >= 100 ? value.toFixed(0) : value.toPrecision(3);
console.table(
  rows.map(({ name, ours, raw, ratio, unit, note }) => ({
    name,
    ours: figure(ours),
    raw: figure(raw),
    ratio: figure(ratio),
    unit,
    note,
  })),
);
const folder = join(import.meta.dirname, 'results');
mkdirSync(folder, { recursive: true });
const file = join(folder, `${new Date().toISOString().replaceAll(':', '-')}.json`);
const machine = { cpu: cpus()[0]?.model, cores: cpus().length, memoryMiB: Math.round(totalmem() / 1_048_576) };
writeFileSync(file, `${JSON.stringify({ machine, node: process.version, rows }, null, 2)}\n`);
console.error(`saved ${file}`);
