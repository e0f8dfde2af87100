import type { Paths } from '../../storage/paths.ts';

/** What the operations of the root parent need to know; nothing of it comes from the API. */
export interface OpsContext {
  readonly paths: Paths;
  /** Whom jobs and Slurm's clients run as. */
  readonly submitUser: { readonly uid: number; readonly gid: number; readonly name: string };
  /** The group through which the API reads what jobs leave. */
  readonly apiGid: number;
  readonly slurmConf: string;
  /** PATH of jobs: the one that the appliance was started with, so that an image's own Python is theirs too. */
  readonly jobPath: string;
}
