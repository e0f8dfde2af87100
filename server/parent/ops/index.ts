import { join } from 'node:path';
import type { ApplianceFacts } from '../../appliance/facts.ts';
import { importRootsOf, type Settings } from '../../config.ts';
import { pathsIn } from '../../storage/paths.ts';
import type { Handlers } from '../protocol.ts';
import { cancel } from './cancel.ts';
import type { OpsContext } from './context.ts';
import type { DataContext } from './data-context.ts';
import { fetchOperation } from './fetch.ts';
import { node } from './node.ts';
import { observe } from './observe.ts';
import { release } from './release.ts';
import { removeOperation } from './remove.ts';
import { submit } from './submit.ts';
import { unpackOperation } from './unpack.ts';

/** All that the API may ask for, each in a file of its own, with what each may know of the machine. Nothing of that comes from a request. */
export function createHandlers(
  facts: ApplianceFacts,
  settings: Settings,
  bucketProblem: () => string | null,
): Handlers {
  const paths = pathsIn(facts.root);
  const jobs: OpsContext = {
    paths,
    submitUser: facts.submit,
    apiGid: facts.api.gid,
    slurmConf: paths.slurmConf,
    jobPath: facts.jobPath,
  };
  const data: DataContext = {
    paths,
    nodeBinary: facts.nodeBinary,
    unpackProgram: join(facts.app, 'unpack.mjs'),
    apiUid: facts.api.uid,
    apiGid: facts.api.gid,
    minFreeBytes: settings.JR_MIN_FREE_BYTES,
    importRoots: importRootsOf(settings),
    bucketProblem,
    bucketMount: settings.JR_B2_ENABLE ? settings.JR_B2_MOUNT : null,
  };
  return {
    submit: (request, signal) => submit(jobs, request, signal),
    cancel: (request, signal) => cancel(jobs, request, signal),
    observe: (request, signal) => observe(jobs, request, signal),
    node: (request, signal) => node(jobs, request, signal),
    release: (request, signal) => release(jobs, request, signal),
    unpack: unpackOperation(data),
    fetch: fetchOperation(data),
    remove: removeOperation(data),
  };
}
