import type { StartMessage } from '../../parent/protocol.ts';

/** How the small appliance of the dataset tests is set up; travels as an argument. */
export interface DataSettings {
  readonly root: string;
  readonly programs: string;
  readonly uid: number;
  readonly gid: number;
  readonly limits: StartMessage['limits'];
  readonly importRoots: readonly string[];
  /** The step at which the API kills itself. */
  readonly dieAt: string | null;
  /** Datasets that an unfinished job needs. */
  readonly needed: readonly string[];
}

export const GENEROUS: StartMessage['limits'] = {
  uploadBytes: 4 * 1024 ** 3,
  unpackedBytes: 4 * 1024 ** 3,
  unpackRatio: 200,
  entries: 1_000_000,
  minFreeBytes: 0,
};
