import type { ApplianceHealth } from '../core/node.ts';

/** What one look at the node told. */
export interface NodeLook {
  readonly state: string;
  readonly reason: string | null;
  readonly usable: boolean;
  readonly gpusInUse: number;
}

export interface HealthWatch {
  /** Costs nothing: what the last looks told. */
  readonly current: () => ApplianceHealth & { readonly usable: boolean };
  /** From the parent: which daemons are ready, whether the bucket's mount works. */
  readonly onStatus: (status: {
    readonly daemons: Readonly<Record<string, boolean>>;
    readonly bucketMounted: boolean;
    readonly bucketProblem: string | null;
  }) => void;
  readonly stop: () => void;
}

const QUIET_MILLISECONDS = 3000;
const IMPATIENT_MILLISECONDS = 250;
/** Older than this, a look at the node says nothing of now. */
const STALE_MILLISECONDS = 30_000;

/** Keeps the answer of /health current: looks at the node every few seconds, sooner while something is wrong or has just changed. */
export function watchHealth(lookAtNode: () => Promise<NodeLook>, now: () => number = Date.now): HealthWatch {
  let daemons: Readonly<Record<string, boolean>> = {};
  let bucket: { readonly mounted: boolean; readonly problem: string | null } = { mounted: false, problem: null };
  let node: NodeLook | null = null;
  let observedAt: number | null = null;
  let timer: NodeJS.Timeout | null = null;
  let looking = false;
  let stopped = false;

  const allReady = () => Object.keys(daemons).length > 0 && Object.values(daemons).every(Boolean);
  const plan = (milliseconds: number) => {
    if (timer !== null) clearTimeout(timer);
    if (!stopped) timer = setTimeout(() => void look(), milliseconds).unref();
  };
  const look = async () => {
    // While a daemon is down scontrol would only wait for it.
    if (looking || !allReady()) return;
    looking = true;
    try {
      node = await lookAtNode();
      observedAt = now();
    } catch {
      // Absence of news is not news: the last look stays until it is stale.
    } finally {
      looking = false;
      plan(node?.usable === true ? QUIET_MILLISECONDS : IMPATIENT_MILLISECONDS);
    }
  };

  return {
    current() {
      const fresh = observedAt !== null && now() - observedAt < STALE_MILLISECONDS;
      return {
        daemons,
        nodeState: node?.state ?? null,
        nodeReason: node?.reason ?? null,
        gpusInUse: node?.gpusInUse ?? null,
        bucketMounted: bucket.mounted,
        bucketProblem: bucket.problem,
        observedAt,
        usable: allReady() && fresh && node?.usable === true,
      };
    },
    onStatus(status) {
      const before = JSON.stringify(daemons);
      daemons = status.daemons;
      bucket = { mounted: status.bucketMounted, problem: status.bucketProblem };
      if (JSON.stringify(daemons) !== before) plan(0);
    },
    stop() {
      stopped = true;
      if (timer !== null) clearTimeout(timer);
    },
  };
}
