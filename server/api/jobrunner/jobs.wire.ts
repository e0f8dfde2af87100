import { z } from 'zod';
import type { JsonObject } from '../../core/json.ts';
import { externalIdOf, statusOf } from '../../core/next-step.ts';
import { formatTimeLimit, parseTimeLimit } from '../../core/time-limit.ts';
import type { JobRequest, JobView } from '../../runner/jobs.ts';
import { integerField, isoTime, jobIdField, textField } from '../fields.ts';

/**
 * One environment variable carries the parameters to the command, and Linux takes none above 128 KiB (execve(2), MAX_ARG_STRLEN).
 */
const MAX_PARAMS_BYTES = 120_000;

const TIME_GRAMMAR =
  'must be a time as Slurm takes it: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes or days-hours:minutes:seconds, and more than zero';

const timeLimitField = z.union([z.number().transform(String), z.string()], TIME_GRAMMAR).transform((text, context) => {
  const seconds = parseTimeLimit(text);
  if (seconds !== null) return seconds;
  context.addIssue({ code: 'custom', message: TIME_GRAMMAR });
  return z.NEVER;
});

const paramsField = z
  .union([z.string(), z.record(z.string(), z.unknown())], 'must be a JSON object')
  .transform((value, context) => {
    const text = typeof value === 'string' ? value : JSON.stringify(value);
    const fault = (message: string) => {
      context.addIssue({ code: 'custom', message });
      return z.NEVER;
    };
    let parsed: unknown;
    try {
      parsed = JSON.parse(text);
    } catch {
      return fault('must be a JSON object; this is not JSON');
    }
    if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed))
      return fault('must be a JSON object, {"name": value, …}');
    const number = inexactInteger(text);
    if (number !== null) return fault(`the number ${number} is too large to be kept exactly: send it as text`);
    if (Buffer.byteLength(JSON.stringify(parsed)) > MAX_PARAMS_BYTES) {
      return fault(`must be at most ${MAX_PARAMS_BYTES} bytes: put larger things into the dataset`);
    }
    return parsed as JsonObject;
  });

/** A seed of 64 bits would arrive as another number. Returns the first such number's text. */
function inexactInteger(json: string): string | null {
  for (const [token] of json.matchAll(/"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g)) {
    if (/^-?\d+$/.test(token) && !Number.isSafeInteger(Number(token))) return token.slice(0, 40);
  }
  return null;
}

export const jobBody = z.strictObject({
  dataset_sha: z
    .string('must be a SHA-256: 64 hexadecimal digits')
    .regex(/^[0-9a-fA-F]{64}$/, 'must be a SHA-256: 64 hexadecimal digits'),
  command_key: textField(100).min(1, 'must be the key of a template'),
  params_json: paramsField.optional(),
  gpus: integerField(0, 256).optional(),
  cpus: integerField(1, 65533).optional(),
  mem_gb: integerField(1, 976_562).optional(),
  time_limit: timeLimitField.optional(),
});

export function requestOf(body: z.output<typeof jobBody>): JobRequest {
  const { gpus, cpus, mem_gb, time_limit } = body;
  return {
    templateKey: body.command_key,
    datasetSha: body.dataset_sha.toLowerCase(),
    params: body.params_json ?? {},
    resources: {
      ...(gpus === undefined ? {} : { gpus }),
      ...(cpus === undefined ? {} : { cpus }),
      ...(mem_gb === undefined ? {} : { memoryMiB: mem_gb * 1024 }),
      ...(time_limit === undefined ? {} : { timeLimitSeconds: time_limit }),
    },
  };
}

export const jobParams = z.strictObject({ id: jobIdField });
export const listQuery = z.strictObject({
  limit: integerField(1, 200).optional(),
  before: jobIdField.optional(),
});

export const acceptedAnswer = z.object({ job_id: z.int(), status: z.literal('SUBMITTED') });
export const cancelAnswer = z.object({ job_id: z.int(), status: z.literal('CANCELLED_REQUESTED') });

const time = z.string().nullable();
export const jobAnswer = z.object({
  job_id: z.int(),
  status: z.string(),
  done: z.boolean(),
  meta: z.object({
    slurm_id: z.string().nullable(),
    command_key: z.string(),
    dataset_sha: z.string(),
    experiment_id: z.string(),
    gpus: z.int(),
    cpus: z.int(),
    mem_gb: z.number(),
    time_limit: z.string(),
    reason: z.string().nullable(),
    exit_code: z.int().nullable(),
    signal: z.int().nullable(),
    queue_position: z.int().nullable(),
    gpu_ids: z.array(z.string()),
    created_at: z.string(),
    estimated_start_at: time,
    started_at: time,
    ended_at: time,
    cancel_requested_at: time,
    log: z.string(),
    result: z.string(),
  }),
});
export const listAnswer = z.object({ jobs: z.array(jobAnswer), next_before: z.int().nullable() });

/**
 * `status` comes first in the text and no other key has that name: the reference's `grep -o '"status":"[^"]*"'` finds this one only.
 */
export function answerOf({ job, glimpse }: JobView): z.output<typeof jobAnswer> {
  const { id, spec, state } = job;
  const { resources } = spec;
  const ran = state.phase === 'running' || state.phase === 'collecting' || state.phase === 'finished' ? state : null;
  const ended = state.phase === 'collecting' || state.phase === 'finished' ? state : null;
  const waiting = state.phase === 'queued' ? state.reason : glimpse.problem;
  return {
    job_id: id,
    status: statusOf(state),
    done: state.phase === 'finished',
    meta: {
      slurm_id: externalIdOf(state),
      command_key: spec.templateKey,
      dataset_sha: spec.datasetSha,
      experiment_id: spec.experimentId ?? `job-${id}`,
      gpus: resources.gpus,
      cpus: resources.cpus,
      mem_gb: resources.memoryMiB / 1024,
      time_limit: formatTimeLimit(resources.timeLimitSeconds),
      reason: (ended === null ? waiting : ended.outcome.reason) || null,
      exit_code: ended?.outcome.exitCode ?? null,
      signal: ended?.outcome.signal ?? null,
      queue_position: state.phase === 'queued' ? glimpse.queuePosition : null,
      gpu_ids: [...(ran?.gpuIds ?? [])],
      created_at: isoTime(job.createdAt),
      estimated_start_at: state.phase === 'queued' ? timeOf(glimpse.estimatedStart) : null,
      started_at: timeOf(ran?.startedAt ?? null),
      ended_at: timeOf(ended?.endedAt ?? null),
      cancel_requested_at: timeOf(job.cancelRequestedAt),
      log: `/jobs/${id}/log`,
      result: `/jobs/${id}/result`,
    },
  };
}

function timeOf(milliseconds: number | null): string | null {
  return milliseconds === null ? null : isoTime(milliseconds);
}
