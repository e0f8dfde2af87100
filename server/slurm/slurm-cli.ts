import { setImmediate as breathe } from 'node:timers/promises';
import type { Logger } from 'pino';
import { AppError, messageOf } from '../core/errors.ts';
import type { Executor, Observation, TrackedJob } from '../core/executor.ts';
import type { Job, JobId } from '../core/job.ts';
import { externalIdOf } from '../core/next-step.ts';
import type { Templates } from '../core/template.ts';
import type { Ask } from '../parent/protocol.ts';
import type { Paths } from '../storage/paths.ts';
import { type QueueRow, readSqueue } from './commands.ts';
import { type CompletionRecord, createCompletionTail } from './job-completion.ts';
import { watchNews } from './news.ts';
import { renderScript } from './script.ts';
import { type Evidence, judge, leftOver } from './state.ts';
import { isAlive, readWitness, type Witness } from './witness.ts';

export interface SlurmCliOptions {
  /** The root parent, which runs Slurm's programs. */
  readonly ask: Ask;
  readonly paths: Paths;
  readonly templates: Templates;
  readonly generation: string;
  readonly log: Logger;
  /** False while slurmctld is known to be down: nobody is asked then, which would take seconds. */
  readonly reachable?: () => boolean;
}

const NOBODY: Witness = { claim: null, ended: null };
const JOBS_IN_ONE_GO = 200;

/** Slurm on this machine, through its command line programs. */
export function createSlurmCli({ ask, paths, templates, generation, log, reachable }: SlurmCliOptions): Executor {
  const records = new Map<JobId, CompletionRecord[]>();
  const deadSince = new Map<JobId, number>();
  /** Jobs whose witness was looked at while they waited: as long as they wait, only news makes us look again. */
  const unclaimed = new Set<JobId>();
  const tail = createCompletionTail(paths.jobCompletion);
  let isWanted: (id: JobId) => boolean = () => true;
  const bornAt = Date.now();

  function keep(record: CompletionRecord): void {
    if (!isWanted(record.jobId)) return;
    const kept = records.get(record.jobId) ?? [];
    kept.push(record);
    records.set(record.jobId, kept);
  }

  function requireSlurm(): void {
    if (reachable?.() === false) throw new AppError('unavailable', 'slurmctld is not running');
  }

  function witnessOf(id: JobId, rows: readonly QueueRow[] | null): Witness {
    const waits = rows !== null && rows.length > 0 && rows.every((row) => row.state === 'PENDING');
    if (waits && unclaimed.has(id)) return NOBODY;
    const witness = readWitness(paths, id);
    if (witness.claim === null) unclaimed.add(id);
    else unclaimed.delete(id);
    return witness;
  }

  function evidenceOf(job: TrackedJob, queue: Queue | null): Evidence {
    const { id, state } = job;
    const now = Date.now();
    const rows = queue === null ? null : (queue.rows.get(id) ?? []);
    const witness = witnessOf(id, rows);
    const alive = typeof witness.claim === 'object' && witness.claim !== null ? isAlive(witness.claim) : null;
    if (witness.claim === null || alive === true) deadSince.delete(id);
    else if (!deadSince.has(id)) deadSince.set(id, now);
    return {
      externalId: externalIdOf(state),
      cancelWished: job.cancelRequestedAt !== null,
      submittingSince: state.phase === 'submitting' ? state.since : null,
      rows,
      records: records.get(id) ?? [],
      witness,
      alive,
      deadSince: deadSince.get(id) ?? null,
      earlierLife: state.phase === 'running' && state.generation !== generation,
      position: (row) => queue?.positions.get(row.slurmId) ?? null,
      now,
    };
  }

  /** Duplicates are made by crashes only; the claim keeps them from running, so that this may fail and be tried again. */
  function removeSurplus(id: JobId, externalIds: readonly string[]): void {
    for (const externalId of externalIds) {
      log.info({ jobId: id, slurmId: externalId }, 'cancelling a surplus Slurm job');
      ask('cancel', { jobId: id, externalId }).catch((error: unknown) => {
        log.warn(
          { jobId: id, slurmId: externalId, reason: messageOf(error) },
          'surplus Slurm job could not be cancelled',
        );
      });
    }
  }

  return {
    async submit(job) {
      requireSlurm();
      const { resources } = job.spec;
      const answer = await ask('submit', {
        jobId: job.id,
        script: scriptOf(job, paths, templates),
        params: JSON.stringify(job.spec.params),
        ...resources,
      });
      return answer.externalId;
    },

    async observe(jobs) {
      requireSlurm();
      const queue = queueOf(readSqueue((await ask('observe', {})).queue));
      await tail.read(keep);
      const seen = new Map<JobId, Observation>();
      const known = new Set<JobId>();
      for (const [index, job] of jobs.entries()) {
        if (index % JOBS_IN_ONE_GO === JOBS_IN_ONE_GO - 1) await breathe();
        known.add(job.id);
        const { observation, surplus } = judge(evidenceOf(job, queue));
        seen.set(job.id, observation);
        removeSurplus(job.id, surplus);
      }
      for (const [id, rows] of queue.rows) {
        // A job that was accepted while squeue ran is wanted, though it was not asked for.
        if (known.has(id) || isWanted(id)) continue;
        removeSurplus(
          id,
          leftOver(rows, bornAt, () => {
            const { claim } = readWitness(paths, id);
            // Where it cannot be known it may well live.
            return typeof claim === 'object' && claim !== null && isAlive(claim) !== false;
          }),
        );
      }
      return seen;
    },

    async cancel(id) {
      requireSlurm();
      await ask('cancel', { jobId: id, externalId: null });
    },

    async release(id) {
      await ask('release', { jobId: id });
    },

    async watch({ wanted, onNews, signal }) {
      isWanted = wanted;
      const readRecords = async () => {
        const ids = new Set<JobId>();
        await tail.read((record) => {
          keep(record);
          ids.add(record.jobId);
        });
        if (ids.size > 0) onNews([...ids]);
      };
      await watchNews({
        paths,
        signal,
        log,
        onWitness(ids) {
          for (const id of ids) unclaimed.delete(id);
          onNews(ids);
        },
        onRecords: () => {
          readRecords().catch((error: unknown) => {
            log.warn({ reason: messageOf(error) }, "Slurm's completion record could not be read");
          });
        },
      });
    },

    glance(jobs) {
      return new Map(jobs.map((job) => [job.id, judge(evidenceOf(job, null)).observation]));
    },

    forget(id) {
      records.delete(id);
      deadSince.delete(id);
      unclaimed.delete(id);
    },
  };
}

interface Queue {
  readonly rows: ReadonlyMap<JobId, readonly QueueRow[]>;
  /** By Slurm's number: 1 is next. */
  readonly positions: ReadonlyMap<string, number>;
}

function queueOf(rows: readonly QueueRow[]): Queue {
  const byJob = new Map<JobId, QueueRow[]>();
  for (const row of rows) {
    const known = byJob.get(row.jobId);
    if (known === undefined) byJob.set(row.jobId, [row]);
    else known.push(row);
  }
  const waiting = rows.filter((row) => row.state === 'PENDING');
  waiting.sort((a, b) => b.priority - a.priority || Number(a.slurmId) - Number(b.slurmId));
  return { rows: byJob, positions: new Map(waiting.map((row, index) => [row.slurmId, index + 1])) };
}

function scriptOf(job: Job, paths: Paths, templates: Templates): string {
  const { templateKey, datasetSha, resources } = job.spec;
  const template = templates.get(templateKey);
  if (template === null)
    throw new AppError('refused_by_scheduler', `the template ${templateKey} is not there any more`);
  return renderScript({
    jobId: job.id,
    entry: template.entry,
    datasetDir: paths.dataset(datasetSha),
    resultDir: paths.result(job.id),
    paramsFile: paths.jobParams(job.id),
    witnessStarted: paths.witnessStarted(job.id),
    witnessEnded: paths.witnessEnded(job.id),
    gpuTableFile: paths.gpuUuids,
    cpus: resources.cpus,
    gpus: resources.gpus,
  });
}
