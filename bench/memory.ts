import { readFileSync } from 'node:fs';

/** Samples the resident memory (MiB) of processes while something runs. `stop()` returns each one's peak. */
export function watchMemory(pids: Readonly<Record<string, number>>): { stop: () => Record<string, number> } {
  const peaks: Record<string, number> = {};
  const sample = () => {
    for (const [name, pid] of Object.entries(pids)) {
      const now = residentMiB(pid);
      if (now > (peaks[name] ?? 0)) peaks[name] = now;
    }
  };
  sample();
  const timer = setInterval(sample, 50);
  return {
    stop() {
      clearInterval(timer);
      sample();
      return peaks;
    },
  };
}

function residentMiB(pid: number): number {
  try {
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024;
  } catch {
    return 0; // it has ended
  }
}
