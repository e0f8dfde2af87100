import type { Express } from 'express';
import type { Logger } from 'pino';
import { createApp } from './api/app.ts';
import { datasetRoutes } from './api/jobrunner/datasets.routes.ts';
import { healthRoutes } from './api/jobrunner/health.routes.ts';
import { jobRoutes } from './api/jobrunner/jobs.routes.ts';
import { outputRoutes } from './api/jobrunner/outputs.routes.ts';
import { templateRoutes } from './api/jobrunner/templates.routes.ts';
import { AppError } from './core/errors.ts';
import type { Ask, StartMessage, StatusMessage } from './parent/protocol.ts';
import { datasets as createDatasets } from './runner/datasets.ts';
import { watchHealth } from './runner/health.ts';
import { createJobs } from './runner/jobs.ts';
import { createOutputs } from './runner/outputs.ts';
import { createReconciler } from './runner/reconciler.ts';
import { parseNode } from './slurm/node-state.ts';
import { createSlurmCli } from './slurm/slurm-cli.ts';
import { openDatabase } from './sqlite/database.ts';
import { datasetStore } from './sqlite/dataset-store.ts';
import { createJobStore } from './sqlite/job-store.ts';
import { createOutputStore } from './sqlite/output-store.ts';
import { createJobFiles, highestJobFolder } from './storage/job-files.ts';
import { pathsIn } from './storage/paths.ts';
import { createTemplateLibrary } from './templates/loader.ts';

export interface ApiOptions {
  readonly start: StartMessage;
  readonly ask: Ask;
  readonly log: Logger;
}

export interface Api {
  readonly app: Express;
  readonly onStatus: (status: StatusMessage) => void;
  /** Puts right what a crash left, then begins to bring jobs forward. Call it before listening. */
  readonly begin: () => Promise<void>;
  /** Ends what was begun and closes the database. */
  readonly end: () => Promise<void>;
}

/** The API from its parts: database, executor, use cases, calls. Whoever wants to know what leans on what reads this one function. */
export function composeApi({ start, ask, log }: ApiOptions): Api {
  const paths = pathsIn(start.root);
  const db = openDatabase(paths.database, start.nativeBinding === '' ? undefined : start.nativeBinding);
  const store = createJobStore(db);
  // What lies there under an id must never be shown for another job.
  store.countOnFrom(highestJobFolder(paths));
  const records = datasetStore(db);
  const templates = createTemplateLibrary({ builtin: start.templates, own: paths.templates });

  const health = watchHealth(async () => {
    const report = parseNode((await ask('node', {})).node);
    if (report === null) throw new AppError('unavailable', 'scontrol answered, but not about our node');
    return report;
  });
  const executor = createSlurmCli({
    ask,
    paths,
    templates,
    generation: start.generation,
    log,
    // Known to be down is known at once, without a client that waits for it.
    reachable: () => health.current().daemons.slurmctld !== false && health.current().daemons.munged !== false,
  });
  const outputs = createOutputs({
    store: createOutputStore(db),
    results: { folder: paths.results, submitUid: start.submitUid },
    jobOf: (id) => {
      const job = store.get(id);
      return job === null ? null : { id, experimentId: job.spec.experimentId };
    },
    now: Date.now,
  });
  const reconciler = createReconciler({
    store,
    executor,
    collect: async (job) => {
      await outputs.index(job.id);
    },
    generation: start.generation,
    log,
  });
  const jobs = createJobs({
    store,
    reconciler,
    templates,
    hasDataset: (sha256) => records.find(sha256) !== null,
    node: start.node,
  });
  const datasets = createDatasets({
    paths,
    records,
    ask,
    limits: start.limits,
    isNeeded: (sha256) => store.needsDataset(sha256),
    now: Date.now,
  });

  const app = createApp({
    token: start.token,
    version: start.version,
    log,
    routes: [
      ...healthRoutes({
        version: start.version,
        node: start.node,
        bucketEnabled: start.bucketEnabled,
        health: health.current,
      }),
      ...jobRoutes({ jobs, files: createJobFiles(paths) }),
      ...datasetRoutes({ datasets, limits: start.limits }),
      ...templateRoutes({ templates }),
      ...outputRoutes({ outputs }),
    ],
  });

  return {
    app,
    onStatus: health.onStatus,
    async begin() {
      const repaired = await datasets.repair();
      if (repaired.recorded + repaired.forgotten > 0) log.info(repaired, 'datasets put right after a crash');
      reconciler.start();
    },
    async end() {
      health.stop();
      await reconciler.stop();
      db.close();
    },
  };
}
