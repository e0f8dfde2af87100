import { AppError } from '../../core/errors.ts';
import { squeueArguments, wordsOf } from '../../slurm/commands.ts';
import type { RequestOf, ResponseOf } from '../protocol.ts';
import type { OpsContext } from './context.ts';
import { runClient } from './run-client.ts';

/** One squeue for all jobs. Throws `unavailable`: an error is never an empty queue. */
export async function observe(
  context: OpsContext,
  _request: RequestOf<'observe'>,
  signal: AbortSignal,
): Promise<ResponseOf<'observe'>> {
  const said = await runClient(context, 'squeue', squeueArguments(), signal);
  if (said.exitCode !== 0) throw new AppError('unavailable', `squeue: ${wordsOf(said.stderr) || 'no answer'}`);
  return { queue: said.stdout };
}
