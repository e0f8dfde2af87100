import type { Datasets } from '../../runner/datasets.ts';
import { type AnyRoute, route } from '../route.ts';
import * as wire from './datasets.wire.ts';
import { receiveUpload, type UploadLimits } from './upload.ts';

export interface DatasetRoutesOptions {
  readonly datasets: Datasets;
  readonly limits: UploadLimits;
}

export function datasetRoutes({ datasets, limits }: DatasetRoutesOptions): AnyRoute[] {
  return [
    route({
      method: 'get',
      path: '/datasets/exists/{sha256}',
      summary: 'Is there a dataset with this SHA-256?',
      params: wire.sha256Params,
      answers: [
        { status: 200, description: 'whether it is there, and what is known of it', schema: wire.existsAnswer },
      ],
      handler: ({ params, res }) => {
        const found = datasets.find(params.sha256);
        const answer = found === null ? { exists: false } : { exists: true, info: wire.infoOf(found) };
        // Callers grep for `"exists": true`, with the blank.
        res.type('application/json').send(JSON.stringify(answer, null, 1).replace(/\n */g, ' '));
      },
    }),
    route({
      method: 'post',
      path: '/datasets/upload',
      summary: 'Store a file, or an archive unpacked, under the SHA-256 of its bytes',
      bodyDescription: wire.uploadBody,
      answers: [
        { status: 200, description: 'stored, now or before', schema: wire.storedAnswer },
        { status: 413, description: 'larger than JR_MAX_UPLOAD_BYTES' },
        { status: 422, description: 'an archive that is hostile, broken or over a limit; nothing was kept' },
        { status: 507, description: 'not enough space' },
      ],
      handler: async ({ req, res }) => {
        const { upload, sha256 } = await receiveUpload(req, res, datasets, limits);
        res.json(wire.storedOf(await datasets.keep(upload, sha256)));
      },
    }),
    route({
      method: 'post',
      path: '/datasets/import_path',
      summary: 'Store a file of the bucket, or of another allowed folder',
      body: wire.importBody,
      answers: [
        { status: 200, description: 'stored, now or before', schema: wire.storedAnswer },
        { status: 403, description: 'outside of the allowed folders' },
        { status: 404, description: 'no such file' },
      ],
      handler: async ({ body, res }) => {
        res.json(wire.storedOf(await datasets.importFrom(body.src_path)));
      },
    }),
    route({
      method: 'get',
      path: '/datasets',
      summary: 'The datasets, newest first',
      query: wire.pageQuery,
      answers: [{ status: 200, description: 'a page; the next one with after=next_after', schema: wire.pageAnswer }],
      handler: ({ query, res }) => {
        res.json(wire.pageOf(datasets.page(query.limit, query.after ?? null), query.limit));
      },
    }),
    route({
      method: 'delete',
      path: '/datasets/{sha256}',
      summary: 'Remove a dataset that no unfinished job needs',
      params: wire.sha256Params,
      answers: [
        { status: 200, description: 'it is gone', schema: wire.deletedAnswer },
        { status: 409, description: 'an unfinished job needs it' },
      ],
      handler: async ({ params, res }) => {
        await datasets.remove(params.sha256);
        res.json({ sha256: params.sha256, deleted: true });
      },
    }),
  ];
}
