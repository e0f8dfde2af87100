import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { type CompletionRecord, createCompletionTail, parseCompletion } from '../../slurm/job-completion.ts';

const text = readFileSync(new URL('../fixtures/slurm/jobcomp-22.05.log', import.meta.url), 'utf8');
const folder = mkdtempSync(join(tmpdir(), 'jr-jobcomp-'));
after(() => rmSync(folder, { recursive: true }));

test('a record is read, whatever the folder is called; those of others are not', () => {
  const [other, failed, cancelled, lost] = text.split('\n').map(parseCompletion);
  assert.equal(other, null);
  assert.deepEqual(failed, {
    slurmId: '1',
    jobId: 1,
    state: 'FAILED',
    placed: true,
    exitCode: 3,
    signal: 0,
    submitTime: new Date('2026-11-20T16:15:04').getTime(),
    startTime: new Date('2026-11-20T16:15:05').getTime(),
    endTime: new Date('2026-11-20T16:15:06').getTime(),
  });
  assert.equal(cancelled?.state, 'CANCELLED');
  assert.deepEqual([lost?.placed, lost?.exitCode, lost?.signal], [false, 0, 1]);
});

test('each record is told once, half a line only when it is whole, and a rotated file from its start', async () => {
  const path = join(folder, 'jobcomp.log');
  const tail = createCompletionTail(path);
  const told: string[] = [];
  const take = ({ slurmId }: CompletionRecord) => void told.push(slurmId);
  await tail.read(take);
  assert.deepEqual(told, []);
  const [, first = '', second = ''] = text.split('\n');
  writeFileSync(path, `${first}\n${second.slice(0, 40)}`);
  await tail.read(take);
  assert.deepEqual(told, ['1']);
  appendFileSync(path, `${second.slice(40)}\n`);
  await Promise.all([tail.read(take), tail.read(take)]);
  assert.deepEqual(told, ['1', '2']);
  renameSync(path, `${path}.1`);
  writeFileSync(path, `${second}\n`);
  await tail.read(take);
  assert.deepEqual(told, ['1', '2', '2']);
});
