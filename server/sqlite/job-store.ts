import { AppError } from '../core/errors.ts';
import type { TrackedJob } from '../core/executor.ts';
import type { Job, JobId, JobSpec, JobState } from '../core/job.ts';
import type { Db } from './database.ts';

export interface JobStore {
  /** Gives the job its id. On the disk (synchronous=FULL) when this returns. */
  insert(spec: JobSpec, state: JobState, createdAt: number): Job;
  get(id: JobId): Job | null;
  /** Newest first; only ids below `before` when it is given. */
  list(page: { readonly limit: number; readonly before: JobId | null }): Job[];
  /** All jobs that have not finished, without their specs. */
  unfinished(): TrackedJob[];
  /** Whether a job that has not finished works with this dataset. */
  needsDataset(sha256: string): boolean;
  /** All or none. On the disk when this returns if one of them is an intention (`submitting`); else a moment later. */
  saveStates(jobs: readonly Pick<Job, 'id' | 'state'>[]): void;
  /** The next id is above this one, whatever became of the database: it was deleted, or an old copy was put back. */
  countOnFrom(id: JobId): void;
  /** Keeps the first wish. */
  requestCancel(id: JobId, at: number): void;
}

interface Row {
  readonly id: number;
  readonly spec: string;
  readonly state: string;
  readonly created_at: number;
  readonly cancel_requested_at: number | null;
}

export function createJobStore(db: Db): JobStore {
  const insert = db.prepare('INSERT INTO jobs (spec, phase, state, created_at) VALUES (?, ?, ?, ?)');
  const select = 'SELECT id, spec, state, created_at, cancel_requested_at FROM jobs';
  const byId = db.prepare<[number], Row>(`${select} WHERE id = ?`);
  const page = db.prepare<[number, number], Row>(`${select} WHERE id < ? ORDER BY id DESC LIMIT ?`);
  const unfinished = db.prepare<[], Pick<Row, 'id' | 'state' | 'cancel_requested_at'>>(
    `SELECT id, state, cancel_requested_at FROM jobs WHERE phase <> 'finished' ORDER BY id`,
  );
  const needs = db.prepare<[string]>(
    `SELECT 1 FROM jobs WHERE phase <> 'finished' AND spec ->> '$.datasetSha' = ? LIMIT 1`,
  );
  const save = db.prepare('UPDATE jobs SET phase = ?, state = ? WHERE id = ?');
  const wish = db.prepare('UPDATE jobs SET cancel_requested_at = ? WHERE id = ? AND cancel_requested_at IS NULL');
  const raise = db.prepare(`UPDATE sqlite_sequence SET seq = ? WHERE name = 'jobs' AND seq < ?`);
  const sequence = db.prepare(`SELECT 1 FROM sqlite_sequence WHERE name = 'jobs'`);
  const begin = db.prepare(`INSERT INTO sqlite_sequence (name, seq) VALUES ('jobs', ?)`);
  const saveAll = db.transaction((jobs: readonly Pick<Job, 'id' | 'state'>[]) => {
    for (const { id, state } of jobs) save.run(state.phase, JSON.stringify(state), id);
  });

  return {
    insert(spec, state, createdAt) {
      const { lastInsertRowid } = writing(() =>
        insert.run(JSON.stringify(spec), state.phase, JSON.stringify(state), createdAt),
      );
      return { id: Number(lastInsertRowid), spec, state, createdAt, cancelRequestedAt: null };
    },
    get(id) {
      const row = byId.get(id);
      return row === undefined ? null : jobOf(row);
    },
    list({ limit, before }) {
      return page.all(before ?? Number.MAX_SAFE_INTEGER, limit).map(jobOf);
    },
    unfinished() {
      return unfinished.all().map((row) => ({
        id: row.id,
        state: JSON.parse(row.state) as JobState,
        cancelRequestedAt: row.cancel_requested_at,
      }));
    },
    needsDataset: (sha256) => needs.get(sha256) !== undefined,
    saveStates(jobs) {
      if (jobs.length === 0) return;
      const intends = jobs.some(({ state }) => state.phase === 'submitting');
      if (intends) return writing(() => saveAll(jobs));
      // What was seen is seen again after a power cut: not worth a wait for the disk, which would hold up every request. The next
      // commit that is worth it takes these along.
      db.pragma('synchronous = NORMAL');
      try {
        writing(() => saveAll(jobs));
      } finally {
        db.pragma('synchronous = FULL');
      }
    },
    countOnFrom(id) {
      // SQLite makes the row at the first insert only, and the table has no key (https://www.sqlite.org/autoinc.html).
      if (raise.run(id, id).changes > 0 || sequence.get() !== undefined) return;
      if (id > 0) begin.run(id);
    },
    requestCancel(id, at) {
      writing(() => wish.run(at, id));
    },
  };
}

function jobOf(row: Row): Job {
  return {
    id: row.id,
    spec: JSON.parse(row.spec) as JobSpec,
    state: JSON.parse(row.state) as JobState,
    createdAt: row.created_at,
    cancelRequestedAt: row.cancel_requested_at,
  };
}

/** A full disk is the caller's to know; SQLite says it with these codes (https://www.sqlite.org/rescode.html). */
function writing<T>(act: () => T): T {
  try {
    return act();
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    if (typeof code === 'string' && /^SQLITE_(FULL|IOERR_WRITE|IOERR_FSYNC)$/.test(code)) {
      throw new AppError('out_of_space', 'the disk is full: the record could not be written', { cause: error });
    }
    throw error;
  }
}
