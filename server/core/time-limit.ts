/**
 * A time as Slurm's `--time` takes it (https://slurm.schedmd.com/sbatch.html#OPT_time): "minutes", "minutes:seconds",
 * "hours:minutes:seconds", "days-hours", "days-hours:minutes" and "days-hours:minutes:seconds". Returns seconds, or null for
 * anything else, for zero and for what does not fit Slurm's 32-bit minutes.
 */
export function parseTimeLimit(text: string): number | null {
  const match = /^(?:(\d{1,5})-)?(\d{1,9})(?::(\d{1,9}))?(?::(\d{1,9}))?$/.exec(text);
  if (match === null) return null;
  const [days, a, b, c] = match.slice(1).map((part) => (part === undefined ? null : Number(part)));
  let seconds: number;
  if (days !== null && days !== undefined) seconds = days * 86400 + (a ?? 0) * 3600 + (b ?? 0) * 60 + (c ?? 0);
  else if (c !== null && c !== undefined) seconds = (a ?? 0) * 3600 + (b ?? 0) * 60 + c;
  else seconds = (a ?? 0) * 60 + (b ?? 0);
  return seconds > 0 && seconds / 60 < 0xffff_fff0 ? seconds : null;
}

/** Slurm's own way to write it: `d-hh:mm:ss`, or `hh:mm:ss` below a day. */
export function formatTimeLimit(seconds: number): string {
  const two = (n: number) => String(Math.floor(n)).padStart(2, '0');
  const days = Math.floor(seconds / 86400);
  const clock = `${two((seconds % 86400) / 3600)}:${two((seconds % 3600) / 60)}:${two(seconds % 60)}`;
  return days > 0 ? `${days}-${clock}` : clock;
}
