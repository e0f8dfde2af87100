import { spawn } from 'node:child_process';
import type { Duplex } from 'node:stream';
import { serve } from '../../parent/channel.ts';
import { fetchOperation } from '../../parent/ops/fetch.ts';
import { removeOperation } from '../../parent/ops/remove.ts';
import { emptyStaging } from '../../parent/ops/staging-folder.ts';
import { unpackOperation } from '../../parent/ops/unpack.ts';
import type { Handlers } from '../../parent/protocol.ts';
import { pathsIn } from '../../storage/paths.ts';
import type { DataSettings } from './data-settings.ts';

/** The root parent with nothing but the operations on datasets. */
const settings = JSON.parse(process.argv[2] ?? '') as DataSettings;
const paths = pathsIn(settings.root);
emptyStaging(paths, settings);
const context = {
  paths,
  nodeBinary: process.execPath,
  unpackProgram: `${settings.programs}/unpack.mjs`,
  apiUid: settings.uid,
  apiGid: settings.gid,
  minFreeBytes: settings.limits.minFreeBytes,
  importRoots: settings.importRoots,
  bucketMount: null,
  bucketProblem: () => null,
};
const api = spawn(process.execPath, [`${settings.programs}/data-api.mjs`, JSON.stringify(settings)], {
  uid: settings.uid,
  gid: settings.gid,
  env: {},
  stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
});
const handlers: Partial<Handlers> = {
  unpack: unpackOperation(context),
  fetch: fetchOperation(context, 3000),
  remove: removeOperation(context),
};
serve(api.stdio[3] as Duplex, handlers as Handlers);
api.once('exit', () => process.exit(1));
process.once('SIGTERM', () => api.kill('SIGTERM'));
