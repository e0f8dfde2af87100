import { execFileSync } from 'node:child_process';
import type { RunningAppliance } from './appliance.ts';

/** Submits straight to Slurm as the submit user; output goes to `/tmp/jr-test-<id>.out`. Returns Slurm's number. */
export function submit(appliance: RunningAppliance, args: readonly string[], command: string): string {
  const asRunner = ['--reuid=runner', '--regid=runner', '--clear-groups'];
  const options = ['--parsable', '--mem=50', '--output=/tmp/jr-test-%j.out', ...args];
  return execFileSync('setpriv', [...asRunner, 'sbatch', ...options, '--wrap', command], {
    env: appliance.slurmEnv,
    cwd: '/tmp',
    encoding: 'utf8',
  }).trim();
}

/** Slurm's state word, empty when it does not know the job. */
export function jobState(appliance: RunningAppliance, id: string): string {
  try {
    const text = execFileSync('scontrol', ['-o', 'show', 'job', id], {
      env: appliance.slurmEnv,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    return / JobState=(\S+)/.exec(text)?.[1] ?? '';
  } catch {
    return '';
  }
}
