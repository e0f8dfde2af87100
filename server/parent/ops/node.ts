import { execa } from 'execa';
import { type ApplianceFacts, slurmEnvironment } from '../../appliance/facts.ts';
import { AppError } from '../../core/errors.ts';
import type { Handlers } from '../protocol.ts';

/** `scontrol -o show node`: one line of text, read by `slurm/node-state.ts` on the API's side. */
export function askNode({ root, node }: ApplianceFacts): Handlers['node'] {
  return async (_request, signal) => {
    const answer = await execa('scontrol', ['-o', 'show', 'node', node.nodeName], {
      env: slurmEnvironment(root),
      extendEnv: false,
      stdin: 'ignore',
      timeout: 10_000,
      reject: false,
      cancelSignal: signal,
    });
    if (answer.exitCode !== 0)
      throw new AppError('unavailable', `scontrol show node: ${String(answer.stderr).slice(0, 300)}`);
    return { node: String(answer.stdout) };
  };
}
