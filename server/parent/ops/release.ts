import { execa } from 'execa';
import { AppError } from '../../core/errors.ts';
import type { RequestOf, ResponseOf } from '../protocol.ts';
import type { OpsContext } from './context.ts';

const RELEASE_LIMIT_MS = 60_000;

/**
 * Lets the API's group read what a job wrote with a narrow mode. As the submit user, who owns it: a link that a job left cannot lead
 * to more than that user may do anyway (and chmod -R follows none). Files that vanish or belong to others are left as they are.
 */
export async function release(
  { paths, submitUser }: OpsContext,
  { jobId }: RequestOf<'release'>,
  signal: AbortSignal,
): Promise<ResponseOf<'release'>> {
  const result = await execa('chmod', ['-R', '-f', 'g+rX', '--', paths.result(jobId)], {
    uid: submitUser.uid,
    gid: submitUser.gid,
    cwd: '/',
    extendEnv: false,
    env: { PATH: '/usr/bin:/bin', LANG: 'C.UTF-8' },
    stdio: 'ignore',
    timeout: RELEASE_LIMIT_MS,
    killSignal: 'SIGKILL',
    cancelSignal: signal,
    reject: false,
  });
  if (result.timedOut) throw new AppError('unavailable', 'making the outputs readable took too long');
  return {};
}
