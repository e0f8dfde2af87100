import type { JobId } from '../core/job.ts';
import type { Output, OutputPage } from '../core/output.ts';
import type { Db } from './database.ts';

export interface OutputStore {
  /** What is indexed of a job, in the order of the ids, from the one after `after` on. */
  ofJob(jobId: JobId, after: string, limit: number): OutputPage;
  /** All of it, read in pieces with others let in between. */
  allOfJob(jobId: JobId): Promise<readonly Output[]>;
  /** What holds an id within an experiment: the newest job's. */
  newest(experimentId: string, outputId: string): Output | null;
  /** The ids of an experiment that begin with `prefix` and come after `after`, each with what holds it. */
  page(experimentId: string, prefix: string, after: string, limit: number): OutputPage;
  /** Makes `outputs` what is indexed of the job. Large numbers are written in several transactions, and others run in between. */
  replace(jobId: JobId, outputs: readonly Output[]): Promise<void>;
}

interface Row {
  readonly experiment_id: string;
  readonly output_id: string;
  readonly job_id: number;
  readonly path: string;
  readonly bytes: number;
  readonly weights: number;
  readonly created_at: number;
}

const COLUMNS = 'experiment_id, output_id, job_id, path, bytes, weights, created_at';
/** Rows of one transaction: about 5 ms, so that no request waits longer for an index of a huge folder. */
const CHUNK = 500;

export function createOutputStore(db: Db): OutputStore {
  const ofJob = db.prepare<[number, string, number], Row>(
    `SELECT ${COLUMNS} FROM outputs WHERE job_id = ? AND output_id > ? ORDER BY output_id LIMIT ?`,
  );
  // By both columns: while a job's experiment changes, one id of it may stand under the old and the new one.
  const allFrom = db.prepare<[number, string, string], Row>(
    `SELECT ${COLUMNS} FROM outputs WHERE job_id = ? AND (output_id, experiment_id) > (?, ?)
     ORDER BY output_id, experiment_id LIMIT ${CHUNK}`,
  );
  const newest = db.prepare<[string, string], Row>(
    `SELECT ${COLUMNS} FROM outputs WHERE experiment_id = ? AND output_id = ? ORDER BY job_id DESC LIMIT 1`,
  );
  // The primary key holds an id's jobs newest first: of each id the first row counts.
  const rowsFrom = db.prepare<[string, string, number], Row>(
    `SELECT ${COLUMNS} FROM outputs WHERE experiment_id = ? AND output_id >= ? ORDER BY output_id, job_id DESC LIMIT ?`,
  );
  const rowsBeyond = db.prepare<[string, string, number], Row>(
    `SELECT ${COLUMNS} FROM outputs WHERE experiment_id = ? AND output_id > ? ORDER BY output_id, job_id DESC LIMIT ?`,
  );
  const remove = db.prepare('DELETE FROM outputs WHERE experiment_id = ? AND output_id = ? AND job_id = ?');
  const put = db.prepare(`INSERT INTO outputs (${COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET path = excluded.path, bytes = excluded.bytes, weights = excluded.weights`);

  const pageOfJob = (jobId: JobId, after: string, limit: number): OutputPage => {
    const rows = ofJob.all(jobId, after, limit + 1);
    const outputs = rows.slice(0, limit).map(outputOf);
    return { outputs, next: rows.length > limit ? (outputs.at(-1)?.outputId ?? null) : null };
  };

  async function allOfJob(jobId: JobId): Promise<readonly Output[]> {
    const all: Output[] = [];
    for (let rows = allFrom.all(jobId, '', ''); rows.length > 0; ) {
      all.push(...rows.map(outputOf));
      const last = rows.at(-1);
      await othersFirst();
      rows = last === undefined ? [] : allFrom.all(jobId, last.output_id, last.experiment_id);
    }
    return all;
  }

  /** Only what differs is written: an index that is asked for again costs a read. Each chunk leaves an index that is true. */
  async function replace(jobId: JobId, outputs: readonly Output[]): Promise<void> {
    const steps: (() => void)[] = [];
    const known = new Map((await allOfJob(jobId)).map((each) => [keyOf(each), each]));
    for (const [index, each] of outputs.entries()) {
      if (index % (4 * CHUNK) === 0) await othersFirst();
      const before = known.get(keyOf(each));
      known.delete(keyOf(each));
      if (before?.path === each.path && before.bytes === each.bytes) continue;
      const { experimentId, outputId, path, bytes, weights, createdAt } = each;
      steps.push(() => put.run(experimentId, outputId, jobId, path, bytes, Number(weights), createdAt));
    }
    for (const { experimentId, outputId } of known.values()) {
      steps.push(() => remove.run(experimentId, outputId, jobId));
    }
    for (let start = 0; start < steps.length; start += CHUNK) {
      if (start > 0) await othersFirst();
      db.transaction(() => {
        for (const step of steps.slice(start, start + CHUNK)) step();
      })();
    }
  }

  return {
    ofJob: pageOfJob,
    allOfJob,
    newest(experimentId, outputId) {
      const row = newest.get(experimentId, outputId);
      return row === undefined ? null : outputOf(row);
    },
    page(experimentId, prefix, after, limit) {
      const outputs: Output[] = [];
      // Compared as SQLite compares text, which is by UTF-8 bytes; JavaScript would compare UTF-16.
      const afterPrefix = Buffer.compare(Buffer.from(after), Buffer.from(prefix)) >= 0;
      let take = limit + 1;
      let rows =
        after !== '' && afterPrefix
          ? rowsBeyond.all(experimentId, after, take)
          : rowsFrom.all(experimentId, prefix, take);
      for (let last = after; rows.length > 0; rows = rowsBeyond.all(experimentId, last, take)) {
        const before = outputs.length;
        for (const row of rows) {
          if (row.output_id === last && outputs.length > 0) continue;
          if (!row.output_id.startsWith(prefix)) return { outputs, next: null };
          if (outputs.length === limit) return { outputs, next: last };
          outputs.push(outputOf(row));
          last = row.output_id;
        }
        if (rows.length < take) return { outputs, next: null };
        // Many jobs share these ids: step from id to id instead, so that a thousand of them cost no more than one.
        if ((outputs.length - before) * 4 < rows.length) take = 1;
      }
      return { outputs, next: null };
    },
    replace,
  };
}

function othersFirst(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function keyOf({ experimentId, outputId }: Output): string {
  return `${experimentId}\0${outputId}`;
}

function outputOf(row: Row): Output {
  return {
    experimentId: row.experiment_id,
    outputId: row.output_id,
    jobId: row.job_id,
    path: row.path,
    bytes: row.bytes,
    weights: row.weights === 1,
    createdAt: row.created_at,
  };
}
