import type { Paths } from '../../storage/paths.ts';

/** What the operations on datasets need to know of the machine. */
export interface DataContext {
  readonly paths: Paths;
  readonly nodeBinary: string;
  /** `dist/unpack.mjs`, where any user may read it. */
  readonly unpackProgram: string;
  readonly apiUid: number;
  readonly apiGid: number;
  /** Space that a copy must leave free. */
  readonly minFreeBytes: number;
  /** Folders that may be imported from; the first is the one that relative paths are below. */
  readonly importRoots: readonly string[];
  /** Why the bucket's mount cannot be used now; null when it can, or when there is none. Asked before and after each copy. */
  readonly bucketProblem: () => string | null;
  /** Which of the roots is the bucket's mount. */
  readonly bucketMount: string | null;
}
