import { AppError } from '../../core/errors.ts';
import { scontrolNodeArguments, wordsOf } from '../../slurm/commands.ts';
import type { RequestOf, ResponseOf } from '../protocol.ts';
import type { OpsContext } from './context.ts';
import { runClient } from './run-client.ts';

/** `scontrol show node`. Throws `unavailable`. */
export async function node(
  context: OpsContext,
  _request: RequestOf<'node'>,
  signal: AbortSignal,
): Promise<ResponseOf<'node'>> {
  const said = await runClient(context, 'scontrol', scontrolNodeArguments(), signal);
  if (said.exitCode !== 0) throw new AppError('unavailable', `scontrol: ${wordsOf(said.stderr) || 'no answer'}`);
  return { node: said.stdout };
}
