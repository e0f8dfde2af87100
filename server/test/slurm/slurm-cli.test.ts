import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { Job } from '../../core/job.ts';
import { isAlive, readWitness } from '../../slurm/witness.ts';
import { executorContract } from '../contract/executor.ts';
import { makeTemplates, slurmExecutor, specOf } from '../house/queue.ts';
import { type HouseSlurm, startSlurm, until } from '../house/slurm.ts';

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

test('a wish to cancel ends a job that Slurm has forgotten while it runs', async () => {
  const house = await startSlurm();
  try {
    const { paths } = house.context;
    const executor = slurmExecutor(house, makeTemplates(paths, { stays: `${started}; sleep 300` }));
    const job: Job = {
      id: 1,
      spec: specOf('stays'),
      createdAt: Date.now(),
      cancelRequestedAt: null,
      state: { phase: 'submitting', since: Date.now() },
    };
    const claim = () => {
      const found = readWitness(paths, job.id).claim;
      return found === null || found === 'unreadable' ? null : found;
    };
    await executor.submit(job);
    await until('the job to start', () => claim() !== null);
    // Without slurmd nobody tells the new slurmctld that something of the old one still runs.
    for (const daemon of ['slurmctld', 'slurmd'] as const) await house.kill(daemon);
    house.wipeState();
    await house.start('slurmctld');
    const running = claim();
    assert.ok(running !== null && isAlive(running) === true, 'the job outlived the daemons');
    await executor.cancel(job.id);
    assert.equal(isAlive(running), false, 'its process is gone when the wish is answered');
  } finally {
    await house.stop();
  }
});
