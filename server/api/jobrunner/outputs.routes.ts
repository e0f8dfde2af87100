import type { OpenedFile, Outputs } from '../../runner/outputs.ts';
import { type AnyRoute, route } from '../route.ts';
import { contentTypeOf, type OpenFile, sendOpenFile } from '../send-file.ts';
import {
  downloadByJobQuery,
  downloadQuery,
  indexReport,
  jobIdPath,
  jobOutputs,
  jobPath,
  outputPage,
  pageOfJobQuery,
  pageQuery,
  showJobOutputs,
  showPage,
  showReport,
} from './outputs.wire.ts';

const fileAnswers = [
  { status: 200, description: 'the file', contentType: 'application/octet-stream' },
  { status: 206, description: 'the range that was asked for', contentType: 'application/octet-stream' },
  { status: 304, description: 'the copy that the caller has is the current one' },
] as const;

export function outputRoutes({ outputs }: { readonly outputs: Outputs }): AnyRoute[] {
  return [
    route({
      method: 'get',
      path: '/jobs/{id}/result',
      summary: "Index the job's outputs, then its result.json as the job wrote it",
      params: jobIdPath,
      answers: [{ status: 200, description: 'what the job wrote', contentType: 'application/json' }],
      handler: async ({ params, req, res }) => {
        await outputs.index(params.id);
        const file = await outputs.openResult(params.id);
        await sendOpenFile(req, res, { ...asAttachment(file, 'result.json'), disposition: 'inline' });
      },
    }),
    route({
      method: 'post',
      path: '/outputs/index/{job_id}',
      summary: "Look at the job's result folder again",
      params: jobPath,
      answers: [{ status: 200, description: 'how many outputs there are', schema: indexReport }],
      handler: async ({ params, res }) => void res.json(showReport(await outputs.index(params.job_id))),
    }),
    route({
      method: 'get',
      path: '/outputs/by_job/{job_id}',
      summary: 'Outputs of a job',
      params: jobPath,
      query: pageOfJobQuery,
      answers: [{ status: 200, description: 'outputs by id', schema: jobOutputs }],
      handler: ({ params, query, res }) => {
        res.json(showJobOutputs(params.job_id, outputs.ofJob(params.job_id, query.after, query.limit)));
      },
    }),
    route({
      method: 'get',
      path: '/outputs',
      summary: 'Outputs of an experiment, each from the newest job that has it',
      query: pageQuery,
      answers: [{ status: 200, description: 'a page, by id', schema: outputPage }],
      handler: ({ query, res }) => {
        res.json(showPage(outputs.page(query.experiment_id, query.prefix, query.after, query.limit)));
      },
    }),
    route({
      method: 'get',
      path: '/outputs/download',
      summary: 'An output by experiment and id',
      query: downloadQuery,
      answers: fileAnswers,
      handler: async ({ query, req, res }) => {
        const file = await outputs.open(query.experiment_id, query.output_id);
        await sendOpenFile(req, res, asAttachment(file, file.path));
      },
    }),
    route({
      method: 'get',
      path: '/outputs/download_by_job',
      summary: "A file of a job by its path in the job's result folder",
      query: downloadByJobQuery,
      answers: fileAnswers,
      handler: async ({ query, req, res }) => {
        const file = await outputs.openPath(query.job_id, query.rel_path);
        await sendOpenFile(req, res, asAttachment(file, query.rel_path));
      },
    }),
  ];
}

function asAttachment({ handle, bytes, mtimeMs }: OpenedFile, path: string): OpenFile {
  const name = path.slice(path.lastIndexOf('/') + 1);
  return { handle, size: bytes, mtimeMs, name, contentType: contentTypeOf(name), disposition: 'attachment' };
}
