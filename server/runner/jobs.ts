import { AppError, type FieldError } from '../core/errors.ts';
import type { Job, JobId, Resources } from '../core/job.ts';
import type { JsonObject } from '../core/json.ts';
import type { NodeFacts } from '../core/node.ts';
import type { Template, Templates } from '../core/template.ts';
import { formatTimeLimit } from '../core/time-limit.ts';
import type { JobStore } from '../sqlite/job-store.ts';
import type { Glimpse, Reconciler } from './reconciler.ts';

export interface JobRequest {
  readonly templateKey: string;
  readonly datasetSha: string;
  readonly params: JsonObject;
  readonly resources: Partial<Resources>;
}

export interface JobView {
  readonly job: Job;
  readonly glimpse: Glimpse;
}

export interface Jobs {
  /**
   * Accepts a job and waits a few seconds for the scheduler's answer. Without an answer the job stays accepted. Throws `invalid`,
   * `not_found` (the dataset), `impossible` (this node can never run it) and `refused_by_scheduler`.
   */
  submit(request: JobRequest): Promise<Job>;
  /** Throws `not_found`. */
  view(id: JobId): JobView;
  list(page: { readonly limit: number; readonly before: JobId | null }): readonly JobView[];
  /** Throws `not_found`, and `conflict` when the job has ended. */
  cancel(id: JobId): void;
}

export interface JobsOptions {
  readonly store: JobStore;
  readonly reconciler: Reconciler;
  readonly templates: Templates;
  readonly hasDataset: (sha256: string) => boolean;
  readonly node: NodeFacts;
}

const ANSWER_LIMIT_MS = 5000;
/** The original's defaults, lowered to what the node has. */
const DEFAULTS: Resources = { gpus: 1, cpus: 4, memoryMiB: 16 * 1024, timeLimitSeconds: 4 * 3600 };

export function createJobs({ store, reconciler, templates, hasDataset, node }: JobsOptions): Jobs {
  function find(id: JobId): Job {
    const job = store.get(id);
    if (job === null) throw new AppError('not_found', `there is no job ${id}`);
    return job;
  }

  return {
    async submit(request) {
      const template = templateOf(request.templateKey, templates);
      const wrong = template.validate(request.params);
      if (wrong.length > 0) throw invalid(wrong.map(({ field, message }) => ({ field: paramField(field), message })));
      const resources = resourcesFor(request.resources, template.resources, node);
      if (!hasDataset(request.datasetSha)) {
        throw new AppError('not_found', `dataset_sha: there is no dataset ${request.datasetSha}; upload it first`, {
          fields: [{ field: 'dataset_sha', message: 'is not a dataset that is here' }],
        });
      }
      const { experimentId } = request.params;
      const accepted = reconciler.accept({
        templateKey: template.key,
        datasetSha: request.datasetSha,
        params: request.params,
        experimentId: typeof experimentId === 'string' && experimentId !== '' ? experimentId : null,
        resources,
      });
      await reconciler.settled(accepted.id, ANSWER_LIMIT_MS);
      const job = find(accepted.id);
      if (job.state.phase === 'finished' && job.state.outcome.status === 'REFUSED') {
        throw new AppError('refused_by_scheduler', `${job.state.outcome.reason} (job ${job.id})`);
      }
      return job;
    },
    view: (id) => ({ job: find(id), glimpse: reconciler.glimpse(id) }),
    list: (page) => store.list(page).map((job) => ({ job, glimpse: reconciler.glimpse(job.id) })),
    cancel(id) {
      find(id);
      reconciler.cancel(id);
    },
  };
}

function templateOf(key: string, templates: Templates): Template {
  const template = templates.get(key);
  if (template !== null) return template;
  const keys = templates.list().map((each) => each.key);
  throw invalid([
    { field: 'command_key', message: `is no template that is here (allowed: ${keys.join(', ') || 'none'})` },
  ]);
}

function paramField(field: string): string {
  return field === '' ? 'params_json' : `params_json.${field}`;
}

function invalid(fields: readonly FieldError[]): AppError {
  return new AppError('invalid', fields.map(({ field, message }) => `${field}: ${message}`).join('; '), { fields });
}

/**
 * What was asked for; where nothing was, the template's or the original's default, lowered to what the node has. Throws `impossible`
 * for what this node can never give.
 */
export function resourcesFor(asked: Partial<Resources>, preset: Partial<Resources>, node: NodeFacts): Resources {
  const has: Resources = {
    gpus: node.gpus.length,
    cpus: node.cpus,
    memoryMiB: node.memoryMiB,
    timeLimitSeconds: node.maxTimeSeconds,
  };
  const resources = {} as { -readonly [K in keyof Resources]: number };
  const fields: FieldError[] = [];
  for (const key of Object.keys(DEFAULTS) as (keyof Resources)[]) {
    const value = asked[key] ?? Math.min(preset[key] ?? DEFAULTS[key], has[key]);
    if (value > has[key]) fields.push({ field: FIELD_OF[key], message: tooMuch(key, value, has[key]) });
    resources[key] = value;
  }
  if (fields.length === 0) return resources;
  const words = fields.map(({ field, message }) => `${field}: ${message}`).join('; ');
  throw new AppError('impossible', `this node can never run the job: ${words}`, { fields });
}

const FIELD_OF: Readonly<Record<keyof Resources, string>> = {
  gpus: 'gpus',
  cpus: 'cpus',
  memoryMiB: 'mem_gb',
  timeLimitSeconds: 'time_limit',
};

function tooMuch(key: keyof Resources, asked: number, available: number): string {
  if (key === 'timeLimitSeconds') return `asked ${formatTimeLimit(asked)}, available ${formatTimeLimit(available)}`;
  if (key === 'memoryMiB') return `asked ${gigabytes(asked)}, available ${gigabytes(available)}`;
  return `asked ${asked}, available ${available}`;
}

/** Rounded down, so that the number that is shown can be asked for. */
function gigabytes(mebibytes: number): string {
  return String(Math.floor((mebibytes / 1024) * 100) / 100);
}
