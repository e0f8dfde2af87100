import {
  appendFileSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { createApp } from '../server/api/app.ts';
import { outputRoutes } from '../server/api/jobrunner/outputs.routes.ts';
import { createOutputs } from '../server/runner/outputs.ts';
import { type Db, openDatabase } from '../server/sqlite/database.ts';
import { createOutputStore } from '../server/sqlite/output-store.ts';
import { type BenchRow, percentile } from './row.ts';

const ROWS = 1_000_000;
const PAGES = 1000;
const WARM_UP = 50;
const FILES = 20_000;
const MEBIBYTE = Buffer.alloc(1024 ** 2, 7);
const DOWNLOAD_BYTES = 512 * 1024 ** 2;
const SUBMIT_UID = 64_001;

/** Outputs over HTTP: a page out of a million, indexing a large folder, and a download; each against the least that could do it. */
export async function run(): Promise<BenchRow[]> {
  const root = realpathSync(mkdtempSync(join(tmpdir(), 'jr-bench-')));
  const db = openDatabase(join(root, 'jr_slurm.db'));
  const results = { folder: join(root, 'results'), submitUid: SUBMIT_UID };
  const outputs = createOutputs({
    store: createOutputStore(db),
    results,
    jobOf: (id) => ({ id, experimentId: null }),
    now: Date.now,
  });
  const app = createApp({
    token: 't',
    version: '0',
    log: pino({ level: 'silent' }),
    routes: outputRoutes({ outputs }),
  });
  const server = app.listen(0, '127.0.0.1');
  server.keepAliveTimeout = 0; // The raw half of a measurement may take longer than the default's 5 s.
  await new Promise((resolve) => server.once('listening', resolve));
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  try {
    return [
      ...(await pages(db, base)),
      await indexing(join(results.folder, '1'), base),
      await download(join(results.folder, '2'), base),
    ];
  } finally {
    server.closeAllConnections();
    server.close();
    db.close();
    rmSync(root, { recursive: true, force: true });
  }
}

/** A thousand experiments of five hundred ids, each id in two jobs. */
function fill(db: Db): void {
  const insert = db.prepare('INSERT INTO outputs VALUES (?, ?, ?, ?, 1, 0, 0)');
  db.transaction(() => {
    for (let n = 0; n < ROWS; n++) {
      const id = `output-${String(Math.floor(n / 2) % 500).padStart(6, '0')}`;
      insert.run(`experiment-${Math.floor(n / 1000)}`, id, 1000 + (n % 2), `${id}.pth`);
    }
  })();
}

async function pages(db: Db, base: string): Promise<BenchRow[]> {
  fill(db);
  const ask = (n: number) =>
    [`experiment-${(n * 7919) % 1000}`, `output-${String((n * 104_729) % 400).padStart(6, '0')}`] as const;
  const plain = db.prepare(
    'SELECT * FROM outputs WHERE experiment_id = ? AND output_id > ? ORDER BY output_id, job_id DESC LIMIT 200',
  );
  const raw: number[] = [];
  const ours: number[] = [];
  for (let n = -WARM_UP; n < PAGES; n++) {
    const [experiment, after] = ask(Math.abs(n));
    const plainly = await milliseconds(() => JSON.stringify(plain.all(experiment, after)));
    const overHttp = await milliseconds(() =>
      get(`${base}/outputs?experiment_id=${experiment}&after=${after}&limit=100`),
    );
    if (n < 0) continue;
    raw.push(plainly);
    ours.push(overHttp);
  }
  const note = `page of 100 out of ${ROWS} rows over HTTP; raw: one SELECT of the same rows, as JSON`;
  return [0.5, 0.99].map((share) =>
    row(`outputs page p${share * 100}`, percentile(ours, share), percentile(raw, share), 'ms', note),
  );
}

async function indexing(folder: string, base: string): Promise<BenchRow> {
  for (let n = 0; n < FILES; n++) write(join(folder, `d${n % 100}`), `f${n}.txt`, Buffer.from('x'));
  const list = (path: string): void => {
    for (const entry of readdirSync(path, { withFileTypes: true })) {
      if (entry.isDirectory()) list(join(path, entry.name));
      else statSync(join(path, entry.name));
    }
  };
  list(folder);
  const raw = await milliseconds(() => list(folder));
  let longest = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
  }, 0);
  const ours = await milliseconds(() => get(`${base}/outputs/index/1`, 'POST'));
  clearInterval(timer);
  const note = `${FILES} files, first time; raw: readdir and stat, nothing stored; the event loop was held ${longest.toFixed(0)} ms at most`;
  return row('index a folder', ours, raw, 'ms', note);
}

async function download(folder: string, base: string): Promise<BenchRow> {
  const path = write(folder, 'model.pth', Buffer.alloc(0));
  for (let n = 0; n < DOWNLOAD_BYTES; n += MEBIBYTE.length) appendFileSync(path, MEBIBYTE);
  const mebibytes = DOWNLOAD_BYTES / 1024 ** 2;
  const { createServer } = await import('node:http');
  const { createReadStream } = await import('node:fs');
  const plain = createServer((_req, res) => void createReadStream(path).pipe(res)).listen(0, '127.0.0.1');
  await new Promise((resolve) => plain.once('listening', resolve));
  const raw: number[] = [];
  const ours: number[] = [];
  for (let n = 0; n < 3; n++) {
    raw.push(await milliseconds(() => get(`http://127.0.0.1:${(plain.address() as AddressInfo).port}/`)));
    ours.push(await milliseconds(() => get(`${base}/outputs/download_by_job?job_id=2&rel_path=model.pth`)));
  }
  plain.closeAllConnections();
  plain.close();
  const speed = (times: readonly number[]) => (mebibytes / percentile(times, 0.5)) * 1000;
  return row(
    'download',
    speed(ours),
    speed(raw),
    'MiB/s',
    `${mebibytes} MiB; raw: node's createReadStream piped into an answer`,
  );
}

async function get(url: string, method: 'GET' | 'POST' = 'GET'): Promise<void> {
  const answer = await fetch(url, { method, headers: { Authorization: 'Bearer t' } });
  if (!answer.ok || answer.body === null) throw new Error(`${url}: ${answer.status}`);
  for await (const _ of answer.body);
}

function write(folder: string, name: string, content: Buffer): string {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, name);
  writeFileSync(path, content);
  chownSync(path, SUBMIT_UID, SUBMIT_UID);
  return path;
}

async function milliseconds(work: () => unknown): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

function row(name: string, ours: number, raw: number, unit: string, note: string): BenchRow {
  return { name, ours, raw, ratio: ours / raw, unit, note };
}
