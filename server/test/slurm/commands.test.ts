import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { AppError } from '../../core/errors.ts';
import {
  drainedByForgetfulness,
  jobIdOfName,
  readSbatch,
  readSqueue,
  sbatchArguments,
  scancelArguments,
  scancelFailed,
  squeueArguments,
} from '../../slurm/commands.ts';

const fixture = (name: string) => readFileSync(new URL(`../fixtures/slurm/${name}`, import.meta.url), 'utf8');
const said = (stderr: string, exitCode: number | null = 1, stdout = '') => ({ stderr, exitCode, stdout });

test('sbatch is told everything by options that cannot be mistaken for others', () => {
  const resources = { gpus: 2, cpus: 3, memoryMiB: 4096, timeLimitSeconds: 90_061 };
  assert.deepEqual(
    sbatchArguments(7, resources, { script: '/r/jobs/7/script.sh', log: '/r %/logs/7.log', folder: '/r/results/7' }),
    [
      '--parsable',
      '--job-name=jr-7',
      '--output=/r %%/logs/7.log',
      '--open-mode=append',
      '--chdir=/r/results/7',
      '--ntasks=1',
      '--cpus-per-task=3',
      '--mem=4096M',
      '--time=1-01:01:01',
      '--gres=gpu:2',
      '--no-requeue',
      '/r/jobs/7/script.sh',
    ],
  );
});

test('a job without GPUs asks for none', () => {
  const resources = { gpus: 0, cpus: 1, memoryMiB: 1, timeLimitSeconds: 60 };
  const args = sbatchArguments(1, resources, { script: 's', log: 'l', folder: 'f' });
  assert.ok(args.every((each) => !each.startsWith('--gres')));
});

test('sbatch answers with a number, also when it names the cluster', () => {
  assert.equal(readSbatch(said('', 0, '42\n')), '42');
  assert.equal(readSbatch(said('', 0, '42;jobrunner\n')), '42');
});

const REFUSED = [
  'sbatch: error: Memory specification can not be satisfied\nsbatch: error: Batch job submission failed: Requested node configuration is not available\n',
  'sbatch: error: Batch job submission failed: More processors requested than permitted\n',
  'sbatch: error: Batch job submission failed: Requested node configuration is not available\n',
  'sbatch: error: Invalid generic resource (gres) specification\n',
  'sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)\n',
  'sbatch: error: Invalid --time specification\n',
  'sbatch: error: invalid partition specified: nope\nsbatch: error: Batch job submission failed: Invalid partition name specified\n',
  'sbatch: error: Batch job submission failed: Invalid user id\n',
];
const UNAVAILABLE = [
  'sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)\n',
  'sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n',
  'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n',
  'sbatch: error: If munged is up, restart with --num-threads=10\nsbatch: error: Munge encode failed: Failed to access "/x": No such file or directory\n',
  'sbatch: error: Batch job submission failed: I/O error writing script/environment to file\n',
  '',
];

test("sbatch's refusals are final and keep its words; all else may pass", () => {
  for (const words of REFUSED) assert.equal(codeOf(words), 'refused_by_scheduler', words);
  for (const words of UNAVAILABLE) assert.equal(codeOf(words), 'unavailable', words);
  assert.throws(() => readSbatch(said(REFUSED[0] ?? '')), /Memory specification can not be satisfied; Batch job/);
});

test('an sbatch that was killed is never taken for a refusal, whatever it wrote', () => {
  assert.throws(
    () => readSbatch(said(REFUSED[1] ?? '', null)),
    (error) => error instanceof AppError && error.code === 'unavailable',
  );
});

function codeOf(stderr: string): string {
  try {
    readSbatch(said(stderr));
  } catch (error) {
    if (error instanceof AppError) return error.code;
  }
  return 'none';
}

test('squeue: our rows are read, those of others and nonsense are not', () => {
  const rows = readSqueue(
    `${fixture('squeue-22.05.txt')}\nslurm_load_jobs: nonsense\n|||\n8|jr-007|PENDING|0|1|N/A|N/A|x|\n`,
  );
  assert.deepEqual(
    rows.map(({ slurmId, jobId, state, reason }) => [slurmId, jobId, state, reason]),
    [
      ['1', 1, 'FAILED', 'NonZeroExitCode'],
      ['3', 3, 'PENDING', 'Resources'],
      ['7', 8, 'PENDING', 'Priority'],
      ['2', 2, 'RUNNING', 'None'],
      ['5', 5, 'CANCELLED', 'None'],
      [
        '9',
        9,
        'PENDING',
        'Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions',
      ],
    ],
  );
  assert.equal(rows[0]?.waitStatus, 3 * 256);
  assert.equal(rows[2]?.startTime, 1_795_191_905_000);
  assert.equal(rows[1]?.startTime, null);
});

test('squeue is asked for all states in one question, and for one name where one is meant', () => {
  assert.ok(squeueArguments().includes('--states=all'));
  assert.ok(squeueArguments('jr-7').includes('--name=jr-7'));
});

test('names: only ours, and only in their one form', () => {
  assert.equal(jobIdOfName('jr-12'), 12);
  for (const name of ['jr-0', 'jr-01', 'jr--1', 'jr-', 'wrap', 'jr-1x', `jr-${'9'.repeat(16)}`]) {
    assert.equal(jobIdOfName(name), null, name);
  }
});

test('scancel goes by our name always, so that a number that was given out again is not hit', () => {
  assert.deepEqual(scancelArguments(7, null), ['--name=jr-7']);
  assert.deepEqual(scancelArguments(7, '12'), ['--name=jr-7', '12']);
  assert.equal(scancelFailed(said('scancel: error: Kill job error on job id 12: Invalid job id specified\n')), false);
  assert.equal(
    scancelFailed(said('slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n')),
    true,
  );
  assert.equal(scancelFailed(said('', null)), true);
});

test("only the drain of slurmctld's own forgetfulness is known as such", () => {
  const node = (reason: string) => `NodeName=node0 Arch=x86_64 State=IDLE+DRAIN ThreadsPerCore=1 Reason=${reason}\n`;
  assert.equal(drainedByForgetfulness(node('Duplicate jobid [slurm@2026-11-20T16:41:25]')), 'node0');
  assert.equal(drainedByForgetfulness(node('Duplicate jobid [root@2026-11-20T16:41:25]')), null);
  assert.equal(drainedByForgetfulness(node('Kill task failed [root@2026-11-20T16:41:25]')), null);
  assert.equal(drainedByForgetfulness('NodeName=node0 Arch=x86_64 State=IDLE ThreadsPerCore=1\n'), null);
});
