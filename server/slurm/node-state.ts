/** What `scontrol -o show node` says, as far as we need it. */
export interface NodeReport {
  /** Slurm's words, `IDLE` or `MIXED+DRAIN`, say. */
  readonly state: string;
  readonly reason: string | null;
  /** True when Slurm starts jobs on it (now, or when one of those that run has ended). */
  readonly usable: boolean;
  readonly gpusInUse: number;
}

/** Null when the text is not about a node. */
export function parseNode(text: string): NodeReport | null {
  const state = / State=(\S+)/.exec(text)?.[1];
  if (state === undefined) return null;
  // The reason runs to the end of the line or to its author, `[slurm@2026-01-01T00:00:00]`.
  const reason = / Reason=(.*?)(?: \[[^\]]*\])?(?: Comment=.*)?$/m.exec(text)?.[1]?.trim() ?? null;
  const allocated = / AllocTRES=(\S*)/.exec(text)?.[1] ?? '';
  const gpusInUse = Number(/(?:^|,)gres\/gpu=(\d+)/.exec(allocated)?.[1] ?? 0);
  const words = state.split('+');
  const base = words[0] ?? '';
  const usable =
    /^(IDLE|MIXED|ALLOCATED|COMPLETING)$/.test(base) &&
    !words.some((word) =>
      /^(DRAIN|DRAINED|DRAINING|INVALID_REG|INVAL|NOT_RESPONDING|FAIL|MAINT|REBOOT\S*|POWER\S*)$/.test(word),
    );
  return { state, reason, usable, gpusInUse };
}
