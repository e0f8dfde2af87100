import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { atLeast, parseVersion, render, type SlurmFacts } from '../../slurm/render.ts';

const folder = new URL('../../../slurm-conf/', import.meta.url);
const template = (name: string) => readFileSync(new URL(name, folder), 'utf8');
const templates = { slurm: template('slurm.conf'), gres: template('gres.conf'), cgroup: template('cgroup.conf') };

const facts: SlurmFacts = {
  version: { major: 22, minor: 5 },
  nodeName: 'node0',
  controllerHost: 'BOX-1',
  nodeHost: 'box',
  cpus: 46,
  memoryMiB: 1000,
  gpus: [['/dev/nvidia0'], ['/dev/nvidia3']],
  gpuType: 'h200',
  maxTimeSeconds: 604_800,
  slurmctldPort: 20001,
  slurmdPort: 20002,
  cgroup: 'none',
  files: { mungeSocket: '/r/m', state: '/r/state', spool: '/r/spool', run: '/r/run', jobCompletion: '/r/jobcomp.log' },
};
const lines = (text: string) => text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));

test('pins the cgroup plugin for every version of Slurm, so that slurmd starts where it may not write cgroups', () => {
  for (const [text, pinned] of [
    ['slurm-wlm 21.08.5', 'CgroupPlugin=cgroup/v1'],
    ['slurm-wlm 22.05.8', 'CgroupPlugin=cgroup/v1'],
    ['slurm 23.02.7', 'CgroupPlugin=cgroup/v1'],
    ['slurm-wlm 23.11.4', 'CgroupPlugin=cgroup/v1'],
    ['slurm 24.05.1', 'CgroupPlugin=disabled'],
    ['slurm-wlm 24.11.5', 'CgroupPlugin=disabled'],
    ['slurm 25.11.2', 'CgroupPlugin=disabled'],
  ] as const) {
    const version = parseVersion(text);
    assert.ok(version, text);
    assert.deepEqual(lines(render(templates, { ...facts, version }).cgroup), [pinned], text);
  }
});

test('writes the node with its GPUs, one device each, and no trace of GPUs where there are none', () => {
  const some = render(templates, facts);
  assert.match(
    some.slurm,
    /^NodeName=node0 NodeHostname=box .* CPUs=46 RealMemory=1000 Gres=gpu:h200:2 State=UNKNOWN$/m,
  );
  assert.match(some.slurm, /^GresTypes=gpu$/m);
  assert.deepEqual(lines(some.gres), [
    'NodeName=node0 Name=gpu Type=h200 File=/dev/nvidia0',
    'NodeName=node0 Name=gpu Type=h200 File=/dev/nvidia3',
  ]);
  const none = render(templates, { ...facts, gpus: [] });
  assert.doesNotMatch(lines(none.slurm).join('\n'), /gres/i);
  assert.deepEqual(lines(none.gres), []);
});

test('gives a MIG instance all of its device files', () => {
  const { gres } = render(templates, { ...facts, gpus: [['/dev/nvidia0', '/dev/nvidia-caps/nvidia-cap21']] });
  assert.match(gres, /MultipleFiles=\/dev\/nvidia0,\/dev\/nvidia-caps\/nvidia-cap21$/m);
});

test('confines by cgroups only when it is asked to', () => {
  assert.match(render(templates, facts).slurm, /^ProctrackType=proctrack\/linuxproc$/m);
  assert.doesNotMatch(render(templates, facts).slurm, /^TaskPlugin/m);
  const v1 = render(templates, { ...facts, cgroup: 'v1' });
  assert.match(v1.slurm, /^TaskPlugin=task\/cgroup$/m);
  assert.match(v1.cgroup, /^ConstrainDevices=yes$/m);
  assert.match(render(templates, { ...facts, cgroup: 'v2-delegated' }).cgroup, /^IgnoreSystemd=yes$/m);
});

test('leaves no placeholder, and never writes what some version refuses', () => {
  for (const cgroup of ['none', 'v1', 'v2-systemd', 'v2-delegated'] as const) {
    const all = Object.values(render(templates, { ...facts, cgroup }))
      .map((text) => lines(text).join('\n'))
      .join('\n');
    assert.doesNotMatch(all, /\{\{|CgroupAutomount|SwitchType|CryptoType/);
  }
});

test('compares versions by year and month', () => {
  assert.equal(atLeast({ major: 24, minor: 5 }, 24, 5), true);
  assert.equal(atLeast({ major: 23, minor: 11 }, 24, 5), false);
  assert.equal(parseVersion('no version at all'), null);
});
