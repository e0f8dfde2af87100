import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type express from 'express';
import { type Logger, pino } from 'pino';
import { createApp } from '../../api/app.ts';
import { jobRoutes } from '../../api/jobrunner/jobs.routes.ts';
import type { Executor } from '../../core/executor.ts';
import type { Job, JobId, JobSpec } from '../../core/job.ts';
import type { NodeFacts } from '../../core/node.ts';
import type { Template, Templates } from '../../core/template.ts';
import { cancel } from '../../parent/ops/cancel.ts';
import { node } from '../../parent/ops/node.ts';
import { observe } from '../../parent/ops/observe.ts';
import { release } from '../../parent/ops/release.ts';
import { submit } from '../../parent/ops/submit.ts';
import type { Ask } from '../../parent/protocol.ts';
import { createJobs, type Jobs } from '../../runner/jobs.ts';
import { createReconciler, type Reconciler } from '../../runner/reconciler.ts';
import { createSlurmCli } from '../../slurm/slurm-cli.ts';
import { type Db, openDatabase } from '../../sqlite/database.ts';
import { createJobStore, type JobStore } from '../../sqlite/job-store.ts';
import { createJobFiles } from '../../storage/job-files.ts';
import type { Paths } from '../../storage/paths.ts';
import type { HouseSlurm } from './slurm.ts';
import { until } from './slurm.ts';

export const TOKEN = 'house';
export const DATASET = 'a'.repeat(64);
const silent: Logger = pino({ level: process.env.JR_TEST_LOG ?? 'silent' });

/** The parent's operations, called directly instead of over the socket pair; counted. */
export function askDirectly(slurm: HouseSlurm, calls: string[] = []): Ask {
  const operations = { submit, cancel, observe, node, release };
  return (async (operation: keyof typeof operations, request: never, signal = new AbortController().signal) => {
    calls.push(operation);
    return operations[operation](slurm.context, request, signal);
  }) as Ask;
}

/** Templates of one bash script each, in a folder that the submit user may read. */
export function makeTemplates(paths: Paths, scripts: Readonly<Record<string, string>>): Templates {
  mkdirSync(paths.dataset(DATASET), { recursive: true });
  const templates = Object.entries(scripts).map(([key, script]): Template => {
    const file = join(paths.templates, `${key}.sh`);
    writeFileSync(file, script);
    chmodSync(file, 0o755);
    return {
      key,
      title: key,
      description: '',
      paramsSchema: { type: 'object' },
      resources: {},
      entry: { file, interpreter: 'bash' },
      validate: (params) => ('forbidden' in params ? [{ field: 'forbidden', message: 'is not a parameter' }] : []),
    };
  });
  return { get: (key) => templates.find((each) => each.key === key) ?? null, list: () => templates };
}

export const NODE: NodeFacts = {
  nodeName: 'node0',
  cpus: 4,
  memoryMiB: 8000,
  gpus: [],
  gpuType: 'test',
  maxTimeSeconds: 86_400,
};

export function specOf(templateKey: string, over: Partial<JobSpec> = {}): JobSpec {
  const resources = { gpus: 0, cpus: 1, memoryMiB: 50, timeLimitSeconds: 600 };
  return { templateKey, datasetSha: DATASET, params: {}, experimentId: null, resources, ...over };
}

export interface QueueOptions {
  readonly paths: Paths;
  readonly executor: Executor;
  readonly templates: Templates;
  readonly generation?: string;
  readonly node?: NodeFacts;
  readonly collect?: (job: Job) => Promise<void>;
  readonly log?: Logger;
}

export interface Queue {
  readonly db: Db;
  readonly store: JobStore;
  readonly reconciler: Reconciler;
  readonly jobs: Jobs;
  readonly app: express.Express;
  finished(id: JobId, limitMs?: number): Promise<Job>;
  stop(): Promise<void>;
}

/** The API's half of the job queue, as main wires it. */
export function startQueue(options: QueueOptions): Queue {
  const { paths, executor, templates, generation = 'life-1', node: facts = NODE, collect, log = silent } = options;
  const db = openDatabase(paths.database);
  const store = createJobStore(db);
  const reconciler = createReconciler({ store, executor, collect: collect ?? (async () => {}), generation, log });
  const jobs = createJobs({ store, reconciler, templates, hasDataset: (sha) => sha === DATASET, node: facts });
  const app = createApp({ token: TOKEN, version: '0', log, routes: jobRoutes({ jobs, files: createJobFiles(paths) }) });
  reconciler.start();
  return {
    db,
    store,
    reconciler,
    jobs,
    app,
    async finished(id, limitMs) {
      await until(`job ${id} to finish`, () => store.get(id)?.state.phase === 'finished', limitMs);
      return store.get(id) as Job;
    },
    async stop() {
      await reconciler.stop();
      db.close();
    },
  };
}

export function slurmExecutor(
  slurm: HouseSlurm,
  templates: Templates,
  ask: Ask = askDirectly(slurm),
  generation = 'life-1',
) {
  return createSlurmCli({ ask, paths: slurm.context.paths, templates, generation, log: silent });
}
