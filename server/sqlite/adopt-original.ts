import type Database from 'better-sqlite3';
import { isWeights, parseRelPath } from '../core/output.ts';

/** Tables that the original service kept in its `jr_slurm.db`, moved aside so that ours can take their names. */
export interface Original {
  copyInto(db: Database.Database): void;
}

/**
 * Takes over the database of the original service: its tables are renamed to `original_…` (nothing is thrown away) and what we
 * understand of them is copied. Returns null for an empty database. Runs inside the migration's transaction.
 */
export function adoptOriginal(db: Database.Database): Original | null {
  const tables = ['datasets', 'jobs', 'outputs'].filter((name) => columnsOf(db, name).size > 0);
  if (tables.length === 0) return null;
  for (const name of tables) {
    const indexes = db
      .prepare(`SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL`)
      .pluck()
      .all(name) as string[];
    for (const index of indexes) db.exec(`DROP INDEX "${index.replaceAll('"', '""')}"`);
    db.exec(`ALTER TABLE ${name} RENAME TO original_${name}`);
  }
  return { copyInto };
}

function copyInto(db: Database.Database): void {
  const datasets = columnsOf(db, 'original_datasets');
  if (datasets.has('sha256') && datasets.has('rel_path')) {
    db.exec(`INSERT OR IGNORE INTO datasets (sha256, rel_path, bytes, files, name, created_at)
      SELECT lower(sha256), rel_path, ${integer(datasets, 'bytes')}, 0, rel_path, ${time(datasets)}
      FROM original_datasets WHERE sha256 IS NOT NULL AND rel_path IS NOT NULL`);
  }
  copyOutputs(db);
  // The original's job numbers were Slurm's and were handed out again; ours go on above the highest that it ever used.
  const highest = Math.max(
    highestId(db, 'original_jobs', ['job_id', 'id', 'slurm_id']),
    highestId(db, 'original_outputs', ['job_id']),
  );
  if (highest > 0) {
    db.prepare(`INSERT INTO sqlite_sequence (name, seq) VALUES ('jobs', ?)`).run(highest);
  }
}

/** Paths stood there as the original had them: absolute, below JR_ROOT, or relative to the result folder, which is our way. */
function copyOutputs(db: Database.Database): void {
  const columns = columnsOf(db, 'original_outputs');
  if (!['experiment_id', 'output_id', 'path', 'job_id'].every((name) => columns.has(name))) return;
  const rows = db
    .prepare(`SELECT experiment_id, output_id, CAST(job_id AS INTEGER) AS job_id, path, ${time(columns)} AS created_at
      FROM original_outputs
      WHERE experiment_id IS NOT NULL AND output_id IS NOT NULL AND path IS NOT NULL AND job_id IS NOT NULL`)
    .all() as { experiment_id: string; output_id: string; job_id: number; path: string; created_at: number }[];
  const insert =
    db.prepare(`INSERT OR IGNORE INTO outputs (experiment_id, output_id, job_id, path, bytes, weights, created_at)
    VALUES (?, ?, ?, ?, 0, ?, ?)`);
  for (const row of rows) {
    const below =
      String(row.path)
        .split(new RegExp(`(?:^|/)results/${row.job_id}/`))
        .at(-1) ?? '';
    const parsed = parseRelPath(below);
    if ('fault' in parsed) continue;
    const { path } = parsed;
    insert.run(
      String(row.experiment_id),
      String(row.output_id),
      row.job_id,
      path,
      Number(isWeights(path)),
      row.created_at,
    );
  }
}

function columnsOf(db: Database.Database, table: string): Set<string> {
  return new Set(db.prepare(`SELECT name FROM pragma_table_info(?)`).pluck().all(table) as string[]);
}

function integer(columns: Set<string>, name: string): string {
  return columns.has(name) ? `COALESCE(CAST(${name} AS INTEGER), 0)` : '0';
}

/** ISO text or a number of seconds, as SQLite's own functions wrote them; milliseconds since the epoch. */
function time(columns: Set<string>): string {
  if (!columns.has('created_at')) return '0';
  return `COALESCE(CASE typeof(created_at) WHEN 'text' THEN CAST(strftime('%s', created_at) AS INTEGER) * 1000
    ELSE CAST(created_at * 1000 AS INTEGER) END, 0)`;
}

function highestId(db: Database.Database, table: string, names: readonly string[]): number {
  const columns = columnsOf(db, table);
  const found = names.filter((name) => columns.has(name));
  const values = found.map(
    (name) => db.prepare(`SELECT COALESCE(MAX(CAST(${name} AS INTEGER)), 0) FROM ${table}`).pluck().get() as number,
  );
  return Math.max(0, ...values);
}
