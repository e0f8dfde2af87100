/** One line of the bench's table: what we take, what the raw tool takes in the same run, and their ratio. */
export interface BenchRow {
  readonly name: string;
  readonly ours: number;
  /** The raw tool's figure, or the limit that the figure is held against; null where there is neither. */
  readonly raw: number | null;
  /** Above 1 is worse for times, better for rates: the note says which. */
  readonly ratio: number | null;
  readonly unit: string;
  readonly note: string;
}

/** The value below which the given share (0..1) of the samples lies. */
export function percentile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}
