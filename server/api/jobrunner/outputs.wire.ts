import { z } from 'zod';
import type { JobId } from '../../core/job.ts';
import type { Output, OutputPage } from '../../core/output.ts';
import type { IndexReport } from '../../runner/outputs.ts';
import { integerField, isoTime, jobIdField, textField } from '../fields.ts';

const idField = textField(512).min(1, 'must not be empty');
/** An output's id may be a path of its own, when nothing shorter was left. */
const outputIdField = textField(4096);

export const jobPath = z.strictObject({ job_id: jobIdField });
export const jobIdPath = z.strictObject({ id: jobIdField });
export const pageOfJobQuery = z.strictObject({
  after: outputIdField.default(''),
  limit: integerField(1, 10_000).default(10_000),
});
export const pageQuery = z.strictObject({
  experiment_id: idField,
  prefix: outputIdField.default(''),
  after: outputIdField.default(''),
  limit: integerField(1, 1000).default(100),
});
export const downloadQuery = z.strictObject({
  experiment_id: idField,
  output_id: outputIdField.min(1, 'must not be empty'),
});
export const downloadByJobQuery = z.strictObject({ job_id: jobIdField, rel_path: textField(4096) });

const output = z.object({
  experiment_id: z.string(),
  output_id: z.string(),
  path: z.string().describe("relative to the job's result folder"),
  job_id: z.int(),
  bytes: z.int(),
  weights: z.boolean(),
  created_at: z.iso.datetime(),
});
const next = z.string().nullable().describe('`after` of the next page; null at the end');

export const outputPage = z.object({ outputs: z.array(output), next });
export const jobOutputs = z.object({
  job_id: z.int(),
  result_dir: z.string().describe('relative to JR_ROOT'),
  outputs: z.array(output),
  next,
});
export const indexReport = z.object({
  experiment_id: z.string(),
  count: z.int(),
  skipped: z
    .array(z.object({ path: z.string(), reason: z.string() }))
    .describe('what is no output, and why; the first hundred'),
  skipped_count: z.int(),
});

export function showPage({ outputs, next }: OutputPage): z.input<typeof outputPage> {
  return { outputs: outputs.map(showOutput), next };
}

export function showJobOutputs(jobId: JobId, page: OutputPage): z.input<typeof jobOutputs> {
  return { job_id: jobId, result_dir: `results/${jobId}`, ...showPage(page) };
}

export function showReport(report: IndexReport): z.input<typeof indexReport> {
  return {
    experiment_id: report.experimentId,
    count: report.count,
    skipped: [...report.skipped],
    skipped_count: report.skippedCount,
  };
}

function showOutput(each: Output): z.input<typeof output> {
  return {
    experiment_id: each.experimentId,
    output_id: each.outputId,
    path: each.path,
    job_id: each.jobId,
    bytes: each.bytes,
    weights: each.weights,
    created_at: isoTime(each.createdAt),
  };
}
