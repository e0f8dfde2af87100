import { AppError } from '../../core/errors.ts';
import {
  drainedByForgetfulness,
  scontrolNodeArguments,
  scontrolResumeArguments,
  wordsOf,
} from '../../slurm/commands.ts';
import type { RequestOf, ResponseOf } from '../protocol.ts';
import type { OpsContext } from './context.ts';
import { runClient } from './run-client.ts';

/**
 * `scontrol show node`. Throws `unavailable`. Undoes one kind of drain on the way: the one that slurmctld sets after it was killed and
 * has forgotten that a job ran. The job's claim keeps it from running twice, and nothing else would ever let the node work again.
 */
export async function node(
  context: OpsContext,
  _request: RequestOf<'node'>,
  signal: AbortSignal,
): Promise<ResponseOf<'node'>> {
  const said = await runClient(context, 'scontrol', scontrolNodeArguments(), signal);
  if (said.exitCode !== 0) throw new AppError('unavailable', `scontrol: ${wordsOf(said.stderr) || 'no answer'}`);
  const drained = drainedByForgetfulness(said.stdout);
  // Only root and SlurmUser may; what goes wrong is tried again at the next question.
  if (drained !== null) await runClient(asRoot(context), 'scontrol', scontrolResumeArguments(drained), signal);
  return { node: said.stdout };
}

function asRoot(context: OpsContext): OpsContext {
  return { ...context, submitUser: { uid: 0, gid: 0, name: 'root' } };
}
