import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { detectGpus } from '../../slurm/detect-gpus.ts';
import { detectLimits } from '../../slurm/detect-limits.ts';
import { gpuTypeOf } from '../../slurm/machine.ts';
import { parseNode } from '../../slurm/node-state.ts';

const made: string[] = [];
after(() => {
  for (const folder of made) rmSync(folder, { recursive: true, force: true });
});

/** A folder that looks like a machine. */
function machine(files: Readonly<Record<string, string>>): string {
  const rootfs = mkdtempSync(join(tmpdir(), 'jr-machine-'));
  made.push(rootfs);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(rootfs, path)), { recursive: true });
    writeFileSync(join(rootfs, path), text);
  }
  return rootfs;
}

const host = {
  'proc/self/status': 'Name:\tnode\nCpus_allowed_list:\t0-383\n',
  'proc/meminfo': 'MemTotal:       1056763904 kB\n',
};
const v2 = {
  ...host,
  'proc/self/cgroup': '0::/\n',
  'proc/self/mountinfo': '30 25 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n',
};

test('takes the CPUs and the memory of the container, not of the host (cgroup v2, soft limit)', () => {
  const rootfs = machine({
    ...v2,
    'sys/fs/cgroup/cpu.max': '4608000 100000\n',
    'sys/fs/cgroup/memory.low': '137438953472\n',
    'sys/fs/cgroup/memory.max': '206158430208\n',
  });
  assert.deepEqual(detectLimits({ rootfs }), { cpus: 46, memoryMiB: 131_072 });
});

test('takes the whole host where nothing is limited', () => {
  const rootfs = machine({
    ...v2,
    'sys/fs/cgroup/cpu.max': 'max 100000\n',
    'sys/fs/cgroup/memory.low': '0\n',
    'sys/fs/cgroup/memory.high': 'max\n',
    'sys/fs/cgroup/memory.max': 'max\n',
  });
  assert.deepEqual(detectLimits({ rootfs }), { cpus: 384, memoryMiB: 1_031_996 });
});

test('counts a limit that stands above our own cgroup', () => {
  const rootfs = machine({
    ...v2,
    'proc/self/cgroup': '0::/system.slice/box.scope\n',
    'sys/fs/cgroup/system.slice/memory.max': '1073741824\n',
    'sys/fs/cgroup/system.slice/box.scope/cpu.max': '50000 100000\n',
    'sys/fs/cgroup/system.slice/box.scope/cpuset.cpus.effective': '0-3\n',
  });
  assert.deepEqual(detectLimits({ rootfs }), { cpus: 1, memoryMiB: 1024 });
});

test('reads cgroup v1, also where the mount shows only our part of the hierarchy', () => {
  const rootfs = machine({
    ...host,
    'proc/self/cgroup': '5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n3:cpuset:/docker/abc\n',
    'proc/self/mountinfo': [
      '31 30 0:27 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct',
      '32 30 0:28 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory',
      '33 30 0:29 /docker/abc /sys/fs/cgroup/cpuset ro - cgroup cgroup rw,cpuset',
    ].join('\n'),
    'sys/fs/cgroup/cpu/cpu.cfs_quota_us': '6100000\n',
    'sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000\n',
    'sys/fs/cgroup/memory/memory.soft_limit_in_bytes': '9223372036854771712\n',
    'sys/fs/cgroup/memory/memory.limit_in_bytes': '68719476736\n',
    'sys/fs/cgroup/cpuset/cpuset.cpus': '0-31,64-95\n',
  });
  assert.deepEqual(detectLimits({ rootfs }), { cpus: 61, memoryMiB: 65_536 });
});

const silent = async () => null;
const information = (minor: number) =>
  `Model: \t\t NVIDIA H200\nGPU UUID: \t GPU-0000000${minor}-1111-2222-3333-444444444444\nDevice Minor: \t ${minor}\n`;

test('asks nvidia-smi first, and takes the device number from the driver', async () => {
  const rootfs = machine({
    'dev/nvidia3': '',
    'dev/nvidiactl': '',
    'proc/driver/nvidia/gpus/0000:4e:00.0/information': information(3),
  });
  const answer = '0, GPU-00000003-1111-2222-3333-444444444444, 00000000:4E:00.0, NVIDIA H200\n';
  const found = await detectGpus({
    rootfs,
    devicePrefix: '/dev/nvidia',
    nvidiaSmi: async (args) => (args[0] === '-L' ? '' : answer),
  });
  assert.equal(found.source, 'nvidia-smi');
  assert.deepEqual(found.gpus, [
    { files: ['/dev/nvidia3'], uuid: 'GPU-00000003-1111-2222-3333-444444444444', name: 'NVIDIA H200' },
  ]);
});

test('counts each MIG instance as a GPU, with the devices that open it', async () => {
  const capability = (minor: number) => `DeviceFileMinor: ${minor}\nDeviceFileMode: 292\n`;
  const mig = 'proc/driver/nvidia/capabilities/gpu0/mig';
  const rootfs = machine({
    'dev/nvidia0': '',
    'proc/driver/nvidia/gpus/0000:01:00.0/information': information(0),
    [`${mig}/gi1/access`]: capability(21),
    [`${mig}/gi1/ci0/access`]: capability(22),
    [`${mig}/gi2/access`]: capability(30),
    [`${mig}/gi2/ci0/access`]: capability(31),
  });
  const uuid = 'GPU-00000000-1111-2222-3333-444444444444';
  const list = `GPU 0: NVIDIA A100 (UUID: ${uuid})
  MIG 3g.20gb     Device  0: (UUID: MIG-aaaa)
  MIG 3g.20gb     Device  1: (UUID: MIG-bbbb)
`;
  const found = await detectGpus({
    rootfs,
    devicePrefix: '/dev/nvidia',
    nvidiaSmi: async (args) => (args[0] === '-L' ? list : `0, ${uuid}, 00000000:01:00.0, NVIDIA A100\n`),
  });
  assert.deepEqual(
    found.gpus.map(({ uuid: id, files }) => [id, ...files]),
    [
      ['MIG-aaaa', '/dev/nvidia0', '/dev/nvidia-caps/nvidia-cap21', '/dev/nvidia-caps/nvidia-cap22'],
      ['MIG-bbbb', '/dev/nvidia0', '/dev/nvidia-caps/nvidia-cap30', '/dev/nvidia-caps/nvidia-cap31'],
    ],
  );
});

test('without nvidia-smi reads the driver, without the driver the device nodes in the order of their numbers', async () => {
  const driver = machine({
    'dev/nvidia0': '',
    'dev/nvidia1': '',
    'proc/driver/nvidia/gpus/0000:01:00.0/information': information(1),
    'proc/driver/nvidia/gpus/0000:02:00.0/information': information(0),
  });
  const byDriver = await detectGpus({ rootfs: driver, devicePrefix: '/dev/nvidia', nvidiaSmi: silent });
  assert.deepEqual(
    byDriver.gpus.map(({ files }) => files[0]),
    ['/dev/nvidia1', '/dev/nvidia0'],
  );
  const nodes = machine({ 'dev/nvidia10': '', 'dev/nvidia2': '', 'dev/nvidia-uvm': '', 'dev/nvidiactl': '' });
  const byNodes = await detectGpus({ rootfs: nodes, devicePrefix: '/dev/nvidia', nvidiaSmi: silent });
  assert.deepEqual(
    byNodes.gpus.map(({ files }) => files[0]),
    ['/dev/nvidia2', '/dev/nvidia10'],
  );
});

test('finds AMD cards, and nothing where there is nothing', async () => {
  const amd = machine({
    'dev/kfd': '',
    'dev/dri/renderD128': '',
    'dev/dri/renderD129': '',
    'sys/class/drm/renderD128/device/vendor': '0x8086\n',
    'sys/class/drm/renderD129/device/vendor': '0x1002\n',
  });
  const found = await detectGpus({ rootfs: amd, devicePrefix: '/dev/nvidia', nvidiaSmi: silent });
  assert.deepEqual(
    found.gpus.map(({ files }) => files[0]),
    ['/dev/dri/renderD129'],
  );
  const none = await detectGpus({ rootfs: machine({}), devicePrefix: '/dev/nvidia', nvidiaSmi: silent });
  assert.deepEqual(none, { gpus: [], source: 'none found' });
});

test('names GPUs in a way that Slurm takes', () => {
  assert.equal(gpuTypeOf(['NVIDIA GeForce RTX 4090', 'NVIDIA GeForce RTX 4090']), 'rtx_4090');
  assert.equal(gpuTypeOf(['NVIDIA A100-SXM4-80GB']), 'a100_sxm4_80gb');
  assert.equal(gpuTypeOf(['NVIDIA H200', 'NVIDIA A100']), 'nvidia');
  assert.equal(gpuTypeOf([null]), 'nvidia');
});

test('reads from scontrol whether the node takes jobs', () => {
  const line = (state: string, rest = '') =>
    `NodeName=node0 Arch=x86_64 State=${state} AllocTRES=cpu=1,gres/gpu=2${rest}`;
  assert.deepEqual(parseNode(line('MIXED')), { state: 'MIXED', reason: null, usable: true, gpusInUse: 2 });
  assert.equal(parseNode(line('IDLE+DRAIN', ' Reason=stopping [slurm@2026-01-01T00:00:00]'))?.reason, 'stopping');
  for (const state of ['IDLE+DRAIN', 'DOWN*', 'IDLE*', 'UNKNOWN', 'IDLE+INVALID_REG', 'IDLE+NOT_RESPONDING']) {
    assert.equal(parseNode(line(state))?.usable, false, state);
  }
  assert.equal(parseNode('slurm_load_node error: Unable to contact slurm controller'), null);
});
