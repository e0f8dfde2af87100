import { execa } from 'execa';
import type { Said } from '../../slurm/commands.ts';
import type { OpsContext } from './context.ts';

/**
 * With no controller Slurm 22.05's clients try for 9 seconds by themselves; with one that hangs, for ever.
 */
const CLIENT_LIMIT_MS = 12_000;

/** Runs one of Slurm's programs as the submit user, with an environment made from nothing (sbatch hands its own on to the job). */
export async function runClient(
  { submitUser, slurmConf, jobPath }: OpsContext,
  program: 'sbatch' | 'squeue' | 'scancel' | 'scontrol',
  args: readonly string[],
  signal: AbortSignal,
): Promise<Said> {
  const result = await execa(program, args, {
    uid: submitUser.uid,
    gid: submitUser.gid,
    cwd: '/',
    extendEnv: false,
    env: {
      PATH: jobPath,
      LANG: 'C.UTF-8',
      USER: submitUser.name,
      LOGNAME: submitUser.name,
      SHELL: '/bin/bash',
      SLURM_CONF: slurmConf,
      // squeue's times as seconds since the epoch (squeue(1), ENVIRONMENT VARIABLES); sbatch would hand it on to the job.
      ...(program === 'sbatch' ? {} : { SLURM_TIME_FORMAT: '%s' }),
    },
    stdin: 'ignore',
    timeout: CLIENT_LIMIT_MS,
    killSignal: 'SIGKILL',
    cancelSignal: signal,
    reject: false,
    stripFinalNewline: false,
    maxBuffer: 64 * 1024 * 1024,
  });
  const words = result.timedOut ? `no answer within ${CLIENT_LIMIT_MS / 1000} s` : result.stderr;
  // A program that could not be started has a message and no words of its own.
  const stderr = words === '' && result.failed ? (result.shortMessage ?? '') : words;
  return { stdout: result.stdout, stderr, exitCode: result.exitCode ?? null };
}
