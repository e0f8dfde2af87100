/** Submission against raw sbatch, submission to first instruction, and status reads with 10,000 jobs in the database. */
import { execFile, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { join } from 'node:path';
import { promisify } from 'node:util';
import Database from 'better-sqlite3';
import { readWitness } from '../server/slurm/witness.ts';
import { pathsIn } from '../server/storage/paths.ts';
import { type RunningAppliance, startAppliance } from '../server/test/house/appliance.ts';
import { submitJob, uploadBytes, waitForJob } from '../server/test/house/client.ts';
import { watchMemory } from './memory.ts';
import { type BenchRow, percentile } from './row.ts';

const JOBS_IN_DATABASE = 10_000;
const SUBMISSIONS = 200;
const FIRST_INSTRUCTIONS = 40;
const READ_SECONDS = 10;

export async function run(): Promise<BenchRow[]> {
  const appliance = await startAppliance({ env: { JR_NUM_CPUS: '2' } });
  try {
    const memory = watchMemory(pidsOf(appliance));
    const sha = await uploadBytes(appliance, 'data.txt', Buffer.from('data\n'));
    const rows = [
      ...(await firstInstruction(appliance, sha)),
      ...(await submission(appliance, sha)),
      ...(await reads(appliance)),
    ];
    const peaks = memory.stop();
    for (const [name, peak] of Object.entries(peaks)) {
      rows.push({
        name: `memory of the ${name} during all this`,
        ours: peak,
        raw: 200,
        ratio: peak / 200,
        unit: 'MiB',
        note: 'limit 200',
      });
    }
    return rows;
  } finally {
    await appliance.remove();
  }
}

/** The API's own process is the only child of the root parent that stays. */
function pidsOf(appliance: RunningAppliance): { readonly api: number; readonly parent: number } {
  const parent = appliance.daemonPid('api') ?? 0;
  const children = readFileSync(`/proc/${parent}/task/${parent}/children`, 'utf8').trim().split(' ').map(Number);
  return { parent, api: Math.min(...children) };
}

const agent = new Agent({ keepAlive: true, maxSockets: 1 });

function post(appliance: RunningAppliance, path: string, fields: Readonly<Record<string, string>>): Promise<string> {
  const body = new URLSearchParams(fields).toString();
  return new Promise((resolve, reject) => {
    const outgoing = request(
      appliance.baseUrl + path,
      {
        agent,
        method: 'POST',
        headers: {
          authorization: `Bearer ${appliance.token}`,
          'content-type': 'application/x-www-form-urlencoded',
          'content-length': Buffer.byteLength(body),
        },
      },
      (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk;
        });
        response.on('end', () => (response.statusCode === 200 ? resolve(text) : reject(new Error(text))));
      },
    );
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

const jobFields = (sha: string) => ({
  dataset_sha: sha,
  command_key: 'echo_params',
  gpus: '0',
  cpus: '1',
  mem_gb: '1',
  time_limit: '00:10:00',
});

/**
 * From the answer of POST /jobs to the claim that the batch script writes first, on an idle node. Slurm's scheduler looks at new batch jobs
 * at each whole second, so submissions are spread evenly over the second, as they are in life: in step with the job before, each would just
 * have missed the look.
 */
async function firstInstruction(appliance: RunningAppliance, sha: string): Promise<BenchRow[]> {
  const waits: number[] = [];
  for (let i = 0; i < FIRST_INSTRUCTIONS; i++) {
    const phase = (i * 1000) / FIRST_INSTRUCTIONS;
    await new Promise((resolve) => setTimeout(resolve, (phase - (Date.now() % 1000) + 1000) % 1000));
    const answer = JSON.parse(await post(appliance, '/jobs', jobFields(sha))) as { job_id: number };
    const answered = Date.now();
    await waitForJob(appliance, answer.job_id);
    waits.push(startedAt(appliance.root, answer.job_id) - answered);
  }
  const p50 = percentile(waits, 0.5);
  return [
    {
      name: 'first instruction after the answer, p50',
      ours: p50,
      raw: 600,
      ratio: p50 / 600,
      unit: 'ms',
      note: `limit 600; from ${Math.min(...waits)} to ${Math.max(...waits)} ms`,
    },
  ];
}

function startedAt(root: string, id: number): number {
  const { claim } = readWitness(pathsIn(root), id);
  if (claim === null || claim === 'unreadable') throw new Error(`job ${id} has left no claim`);
  return claim.at;
}

/** POST /jobs and raw sbatch by turns, with the node full of work, so that both only queue. */
async function submission(appliance: RunningAppliance, sha: string): Promise<BenchRow[]> {
  const conf = join(appliance.root, 'slurm', 'etc', 'slurm.conf');
  const uid = Number(spawnSync('id', ['-u', 'runner']).stdout.toString());
  const gid = Number(spawnSync('id', ['-g', 'runner']).stdout.toString());
  const env = { PATH: '/usr/bin:/bin', SLURM_CONF: conf };
  const sbatch = promisify(execFile);
  const script = ['--parsable', '--hold', '--output=/dev/null', '--time=10', '--wrap', 'true'];
  await fillNode(appliance, sha);
  const ours: number[] = [];
  const raw: number[] = [];
  for (let i = 0; i < SUBMISSIONS; i++) {
    let start = performance.now();
    await sbatch('sbatch', script, { uid, gid, env, cwd: '/' });
    raw.push(performance.now() - start);
    start = performance.now();
    await post(appliance, '/jobs', jobFields(sha));
    ours.push(performance.now() - start);
  }
  spawnSync('scancel', ['--user=runner', '--state=PENDING'], { env });
  const [ourP50, rawP50, p99] = [percentile(ours, 0.5), percentile(raw, 0.5), percentile(ours, 0.99)];
  return [
    {
      name: 'POST /jobs against raw sbatch, p50',
      ours: ourP50,
      raw: rawP50,
      ratio: ourP50 / rawP50,
      unit: 'ms',
      note: 'at most 2 ×',
    },
    { name: 'POST /jobs, p99', ours: p99, raw: 60, ratio: p99 / 60, unit: 'ms', note: 'limit 60' },
  ];
}

/** Two jobs that sleep take both CPUs, so that nothing else of the queue starts meanwhile. */
async function fillNode(appliance: RunningAppliance, sha: string): Promise<void> {
  const folder = join(appliance.root, 'templates', 'bench_sleep');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'template.yaml'), 'title: Sleep\nparams: { type: object }\n');
  writeFileSync(join(folder, 'run.sh'), 'sleep 600\n');
  for (let i = 0; i < 2; i++) await submitJob(appliance, { ...jobFields(sha), command_key: 'bench_sleep' });
}

/** GET /jobs/{id} by wrk over random ids, and the proof that no process is started for it: a reaped child would count faults. */
async function reads(appliance: RunningAppliance): Promise<BenchRow[]> {
  fillDatabase(join(appliance.root, 'jr_slurm.db'));
  const lua = `math.randomseed(7)
request = function() return wrk.format("GET", "/jobs/" .. math.random(1, ${JOBS_IN_DATABASE}), {["Authorization"] = "Bearer ${appliance.token}"}) end`;
  const script = join(appliance.root, 'run', 'wrk.lua');
  writeFileSync(script, lua, { mode: 0o600 });
  const childrenBefore = reapedChildrenFaults(pidsOf(appliance).api);
  const { stdout } = await promisify(execFile)('wrk', [
    '-t1',
    '-c16',
    `-d${READ_SECONDS}s`,
    '-s',
    script,
    appliance.baseUrl,
  ]);
  rmSync(script);
  const perSecond = Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1] ?? 0);
  const bad = Number(/Non-2xx or 3xx responses: (\d+)/.exec(stdout)?.[1] ?? 0);
  const started = reapedChildrenFaults(pidsOf(appliance).api) - childrenBefore;
  return [
    {
      name: `GET /jobs/{id} with ${JOBS_IN_DATABASE} jobs`,
      ours: perSecond,
      raw: 3000,
      ratio: perSecond / 3000,
      unit: '1/s',
      note: `at least 3000; ${bad} bad answers; processes started by the API: ${started === 0 ? 'none' : 'SOME'}`,
    },
  ];
}

/** cminflt of /proc/<pid>/stat (proc(5), field 11): page faults of waited-for children. It stays as it is while none was started. */
function reapedChildrenFaults(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[8]);
}

function fillDatabase(path: string): void {
  const db = new Database(path);
  db.pragma('busy_timeout = 10000');
  const row = db
    .prepare(`SELECT spec, phase, state, created_at FROM jobs WHERE phase = 'finished' ORDER BY id LIMIT 1`)
    .get() as Record<string, unknown>;
  const insert = db.prepare(
    'INSERT INTO jobs (spec, phase, state, created_at) VALUES (@spec, @phase, @state, @created_at)',
  );
  db.transaction(() => {
    const have = db.prepare('SELECT MAX(id) FROM jobs').pluck().get() as number;
    for (let i = have; i < JOBS_IN_DATABASE; i++) insert.run(row);
  }).immediate();
  db.close();
}
