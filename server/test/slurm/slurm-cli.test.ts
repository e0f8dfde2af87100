import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after } from 'node:test';
import { executorContract } from '../contract/executor.ts';
import { makeTemplates, slurmExecutor, specOf } from '../house/queue.ts';
import { type HouseSlurm, startSlurm } from '../house/slurm.ts';

let slurm: HouseSlurm | null = null;
after(() => slurm?.stop());

const started = 'echo start >> "$RESULT_DIR/starts"';

executorContract('slurm-cli', async () => {
  const house = await startSlurm();
  slurm = house;
  const { paths } = house.context;
  const templates = makeTemplates(paths, {
    succeeds: started,
    fails: `${started}; exit 7`,
    stays: `${started}; sleep 300`,
    impossible: started,
  });
  return {
    executor: slurmExecutor(house, templates),
    spec: (kind) =>
      specOf(kind, kind === 'impossible' ? { resources: { ...specOf(kind).resources, memoryMiB: 999_999 } } : {}),
    starts(id) {
      const file = join(paths.result(id), 'starts');
      return existsSync(file) ? readFileSync(file, 'utf8').split('\n').length - 1 : 0;
    },
    takeDown: () => house.kill('slurmctld'),
    bringBack: () => house.start('slurmctld'),
  };
});
