import { join } from 'node:path';
import type { JobId } from '../core/job.ts';

/**
 * Where bytes live. Users: A the API (`jobrunner`), R the submit user (`runner`), S `slurm`, M `munge`, 0 root, D a fresh
 * number for each unpacking. What A and R share goes through A's group; R is never in it.
 *
 *   JR_ROOT/                     0:A  1771  A may make files here (SQLite's -wal and -shm) but not move what is root's; others pass through
 *   ├── jr_slurm.db              A    0600  all records (and -wal, -shm)
 *   ├── token                    A    0600  the bearer token, when we made it
 *   ├── datasets/                A:R  2750
 *   │   └── <sha256>/            A          published by a rename, never changed after; files of D inside, read-only to R
 *   ├── staging/                 A    0711
 *   │   └── <32 hex>/            A    0711  one upload: `upload` (A, 0600) and `tree/` (D while it is unpacked); gone after
 *   ├── jobs/<id>/               0    0755  `script.sh` (0, 0644) and `params.json` (R, 0600)
 *   ├── results/<id>/            R:A  2770  the job's; hostile from the first byte
 *   ├── logs/<id>.log            R:A  0640  in a folder of root's, so that a job cannot put a link in its place
 *   ├── witness/                 R:A  2770  `<id>.started` (made with O_EXCL: the claim that lets a job run once), `<id>.ended`
 *   ├── templates/<key>/         0          job templates of the user's own
 *   ├── slurm/etc state spool log             rendered configuration, slurmctld's and slurmd's own; `jobcomp.log` (S:A 0640)
 *   ├── run/                     0    0755  sockets, pid files, the supervisor's service folders; `gpu-uuids`, read by jobs
 *   └── app/                     0    0755  a copy of the programs, only where the users above cannot read the original
 */
export function pathsIn(root: string) {
  return {
    root,
    database: join(root, 'jr_slurm.db'),
    token: join(root, 'token'),
    datasets: join(root, 'datasets'),
    dataset: (sha256: string) => join(root, 'datasets', sha256),
    staging: join(root, 'staging'),
    stagingFolder: (id: string) => join(root, 'staging', id),
    stagingUpload: (id: string) => join(root, 'staging', id, 'upload'),
    stagingTree: (id: string) => join(root, 'staging', id, 'tree'),
    jobs: join(root, 'jobs'),
    jobFolder: (id: JobId) => join(root, 'jobs', String(id)),
    jobScript: (id: JobId) => join(root, 'jobs', String(id), 'script.sh'),
    jobParams: (id: JobId) => join(root, 'jobs', String(id), 'params.json'),
    results: join(root, 'results'),
    result: (id: JobId) => join(root, 'results', String(id)),
    logs: join(root, 'logs'),
    log: (id: JobId) => join(root, 'logs', `${id}.log`),
    witness: join(root, 'witness'),
    witnessStarted: (id: JobId) => join(root, 'witness', `${id}.started`),
    witnessEnded: (id: JobId) => join(root, 'witness', `${id}.ended`),
    templates: join(root, 'templates'),
    slurm: join(root, 'slurm'),
    slurmConf: join(root, 'slurm', 'etc', 'slurm.conf'),
    slurmState: join(root, 'slurm', 'state'),
    slurmSpool: join(root, 'slurm', 'spool'),
    slurmLogs: join(root, 'slurm', 'log'),
    jobCompletion: join(root, 'slurm', 'events', 'jobcomp.log'),
    run: join(root, 'run'),
    gpuUuids: join(root, 'run', 'gpu-uuids'),
    app: join(root, 'app'),
  } as const;
}

export type Paths = ReturnType<typeof pathsIn>;
