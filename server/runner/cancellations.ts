import type { Logger } from 'pino';
import { messageOf } from '../core/errors.ts';
import type { JobId } from '../core/job.ts';

/** A wish that was told is not told again for so long, however often it is seen. */
const AGAIN_MS = 3000;

export interface Cancellations {
  /** Tells the scheduler, unless it was told a moment ago. */
  add(id: JobId): void;
  /** The next wish is told at once. */
  forget(id: JobId): void;
}

export interface CancellationsOptions {
  cancel(id: JobId): Promise<void>;
  readonly log: Logger;
}

/** Repeats the wishes to cancel, in good measure. */
export function createCancellations({ cancel, log }: CancellationsOptions): Cancellations {
  const toldAt = new Map<JobId, number>();
  return {
    add(id) {
      const last = toldAt.get(id);
      if (last !== undefined && performance.now() - last < AGAIN_MS) return;
      toldAt.set(id, performance.now());
      cancel(id).catch((error: unknown) => {
        toldAt.delete(id);
        log.warn({ jobId: id, reason: messageOf(error) }, 'job could not be cancelled; it will be tried again');
      });
    },
    forget: (id) => void toldAt.delete(id),
  };
}
