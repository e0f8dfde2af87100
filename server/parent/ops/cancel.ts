import { AppError } from '../../core/errors.ts';
import { scancelArguments, scancelFailed, wordsOf } from '../../slurm/commands.ts';
import type { RequestOf, ResponseOf } from '../protocol.ts';
import type { OpsContext } from './context.ts';
import { runClient } from './run-client.ts';

/** Fine when the job has ended or is unknown. Throws `unavailable`. */
export async function cancel(
  context: OpsContext,
  { jobId, externalId }: RequestOf<'cancel'>,
  signal: AbortSignal,
): Promise<ResponseOf<'cancel'>> {
  const said = await runClient(context, 'scancel', scancelArguments(jobId, externalId), signal);
  if (scancelFailed(said)) throw new AppError('unavailable', `scancel: ${wordsOf(said.stderr) || 'no answer'}`);
  return {};
}
