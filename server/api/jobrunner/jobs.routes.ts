import { AppError } from '../../core/errors.ts';
import type { Jobs } from '../../runner/jobs.ts';
import type { JobFiles } from '../../storage/job-files.ts';
import { type AnyRoute, route } from '../route.ts';
import { sendTextFile } from '../text-file.ts';
import {
  acceptedAnswer,
  answerOf,
  cancelAnswer,
  jobAnswer,
  jobBody,
  jobParams,
  listAnswer,
  listQuery,
  requestOf,
} from './jobs.wire.ts';

const PAGE = 50;

export function jobRoutes({ jobs, files }: { readonly jobs: Jobs; readonly files: JobFiles }): AnyRoute[] {
  return [
    route({
      method: 'post',
      path: '/jobs',
      summary: 'Submit a job',
      body: jobBody,
      answers: [{ status: 200, description: 'accepted', schema: acceptedAnswer }],
      async handler({ body, res }) {
        const job = await jobs.submit(requestOf(body));
        res.json({ job_id: job.id, status: 'SUBMITTED' });
      },
    }),
    route({
      method: 'get',
      path: '/jobs',
      summary: 'List jobs, newest first',
      query: listQuery,
      answers: [{ status: 200, description: 'a page; `next_before` asks for the next one', schema: listAnswer }],
      handler({ query: { limit = PAGE, before = null }, res }) {
        const page = jobs.list({ limit, before });
        const last = page.at(-1);
        res.json({ jobs: page.map(answerOf), next_before: page.length < limit ? null : (last?.job.id ?? null) });
      },
    }),
    route({
      method: 'get',
      path: '/jobs/{id}',
      summary: 'State of a job',
      params: jobParams,
      answers: [{ status: 200, description: 'the job', schema: jobAnswer }],
      handler({ params, res }) {
        res.json(answerOf(jobs.view(params.id)));
      },
    }),
    route({
      method: 'get',
      path: '/jobs/{id}/log',
      summary: 'What the job wrote so far (stdout and stderr)',
      params: jobParams,
      answers: [
        { status: 200, description: 'the log so far', contentType: 'text/plain' },
        { status: 206, description: 'the range that was asked for', contentType: 'text/plain' },
      ],
      async handler({ params, req, res }) {
        jobs.view(params.id);
        await sendTextFile(req, res, await files.openLog(params.id), `job-${params.id}.log`);
      },
    }),
    route({
      method: 'get',
      path: '/jobs/{id}/script',
      summary: 'The batch script as Slurm got it',
      params: jobParams,
      answers: [{ status: 200, description: 'the script', contentType: 'text/plain' }],
      async handler({ params, req, res }) {
        jobs.view(params.id);
        const script = await files.openScript(params.id);
        if (script === null)
          throw new AppError('not_found', `job ${params.id} has no script yet: Slurm does not have it`);
        await sendTextFile(req, res, script, `job-${params.id}.sh`);
      },
    }),
    route({
      method: 'post',
      path: '/jobs/{id}/cancel',
      summary: 'Cancel a job',
      params: jobParams,
      answers: [{ status: 200, description: 'the wish is noted and will be carried out', schema: cancelAnswer }],
      handler({ params, res }) {
        jobs.cancel(params.id);
        res.json({ job_id: params.id, status: 'CANCELLED_REQUESTED' });
      },
    }),
  ];
}
