import { readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { migInstances } from './detect-mig.ts';

/** A GPU that Slurm can give out. `files` are its device nodes: one, and for a MIG instance those of its capabilities too. */
export interface DetectedGpu {
  readonly files: readonly string[];
  readonly uuid: string | null;
  readonly name: string | null;
}

export interface DetectedGpus {
  readonly gpus: readonly DetectedGpu[];
  /** How they were found, for the line that is printed at start. */
  readonly source: string;
}

export interface GpuSources {
  /** `/` on a real machine; tests give a folder that looks like one. */
  readonly rootfs: string;
  readonly devicePrefix: string;
  /** Runs nvidia-smi with these arguments; null when there is none or it does not answer. */
  readonly nvidiaSmi: (args: readonly string[]) => Promise<string | null>;
}

/**
 * nvidia-smi if it answers, else the driver's /proc files, else device nodes; else AMD's. With a device prefix of the user's own, the
 * nodes with that prefix are all that counts.
 */
export async function detectGpus(sources: GpuSources): Promise<DetectedGpus> {
  const { rootfs, devicePrefix, nvidiaSmi } = sources;
  const nodes = deviceNodes(rootfs, devicePrefix);
  if (devicePrefix !== '/dev/nvidia') {
    return { gpus: nodes.map((file) => ({ files: [file], uuid: null, name: null })), source: `${devicePrefix}*` };
  }
  const listed = await nvidiaSmi(['--query-gpu=index,uuid,pci.bus_id,name', '--format=csv,noheader']);
  const minors = driverFiles(rootfs);
  if (listed !== null) {
    const cards = parseCards(listed).flatMap((card) => {
      // The minor number of the device file is the driver's; without its /proc files the order is the best guess.
      const minor = minors.find((each) => each.busId === card.busId)?.minor ?? card.index;
      const file = `/dev/nvidia${minor}`;
      return nodes.includes(file) ? [{ ...card, minor, file }] : [];
    });
    if (cards.length > 0) {
      const list = await nvidiaSmi(['-L']);
      const gpus = cards.flatMap((card): DetectedGpu[] => {
        const mig = migInstances(rootfs, list ?? '', card);
        return mig.length > 0 ? mig : [{ files: [card.file], uuid: card.uuid, name: card.name }];
      });
      return { gpus, source: 'nvidia-smi' };
    }
  }
  const known = minors.filter(({ minor }) => nodes.includes(`/dev/nvidia${minor}`));
  if (known.length > 0) {
    return {
      gpus: known.map(({ minor, uuid, name }) => ({ files: [`/dev/nvidia${minor}`], uuid, name })),
      source: '/proc/driver/nvidia',
    };
  }
  if (nodes.length > 0) {
    return { gpus: nodes.map((file) => ({ files: [file], uuid: null, name: null })), source: '/dev/nvidia*' };
  }
  const amd = amdCards(rootfs);
  return { gpus: amd, source: amd.length > 0 ? '/dev/kfd' : 'none found' };
}

/** Device nodes `<prefix><number>` in the order of their numbers. */
function deviceNodes(rootfs: string, prefix: string): string[] {
  const folder = dirname(prefix);
  const stem = basename(prefix);
  return entries(join(rootfs, folder))
    .filter((name) => name.startsWith(stem) && /^\d{1,4}$/.test(name.slice(stem.length)))
    .sort((a, b) => Number(a.slice(stem.length)) - Number(b.slice(stem.length)))
    .map((name) => join(folder, name))
    .filter((file) => isDevice(rootfs, file));
}

/** A fixture's "devices" are plain files (tests cannot carry device nodes in the repository): below the real root only devices count. */
function isDevice(rootfs: string, file: string): boolean {
  try {
    const stat = statSync(join(rootfs, file));
    return rootfs === '/' ? stat.isCharacterDevice() || stat.isBlockDevice() : true;
  } catch {
    return false;
  }
}

interface Card {
  readonly index: number;
  readonly uuid: string;
  readonly busId: string;
  readonly name: string;
}

function parseCards(text: string): Card[] {
  return text.split('\n').flatMap((line) => {
    const [index, uuid, busId, ...name] = line.split(',').map((part) => part.trim());
    if (!/^\d+$/.test(index ?? '') || !/^GPU-/.test(uuid ?? '') || busId === undefined) return [];
    return [{ index: Number(index), uuid: uuid ?? '', busId: normalBusId(busId), name: name.join(', ') }];
  });
}

/** nvidia-smi writes the PCI domain with eight digits, /proc with four. */
function normalBusId(text: string): string {
  return text.toLowerCase().replace(/^0{4}(?=[0-9a-f]{4}:)/, '');
}

/** /proc/driver/nvidia/gpus/<bus id>/information, in the order of the bus ids (CUDA_DEVICE_ORDER=PCI_BUS_ID). */
function driverFiles(rootfs: string): { busId: string; minor: number; uuid: string | null; name: string | null }[] {
  const folder = join(rootfs, 'proc/driver/nvidia/gpus');
  return entries(folder)
    .sort()
    .flatMap((busId) => {
      const text = readText(join(folder, busId, 'information'));
      const minor = /^Device Minor:\s*(\d+)/m.exec(text)?.[1];
      if (minor === undefined) return [];
      const uuid = /^GPU UUID:\s*(GPU-[0-9a-f-]{36})\s*$/m.exec(text)?.[1] ?? null;
      return [
        {
          busId: normalBusId(busId),
          minor: Number(minor),
          uuid,
          name: /^Model:\s*(.+?)\s*$/m.exec(text)?.[1] ?? null,
        },
      ];
    });
}

/** AMD's compute driver has one control device for all; each card is a render node whose PCI vendor is 0x1002. */
function amdCards(rootfs: string): DetectedGpu[] {
  if (!isDevice(rootfs, '/dev/kfd')) return [];
  return deviceNodes(rootfs, '/dev/dri/renderD').flatMap((file) => {
    const vendor = readText(join(rootfs, 'sys/class/drm', basename(file), 'device/vendor')).trim();
    return vendor === '' || vendor === '0x1002' ? [{ files: [file], uuid: null, name: 'amd' }] : [];
  });
}

function entries(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
