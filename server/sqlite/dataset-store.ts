import type { Dataset, DatasetCursor, DatasetRecords } from '../core/dataset.ts';
import type { Db } from './database.ts';

const COLUMNS = `sha256, rel_path AS relPath, bytes, files, name, created_at AS createdAt`;

/** The records of datasets: what is stored, not where its bytes are. */
export function datasetStore(db: Db): DatasetRecords {
  const find = db.prepare<[string], Dataset>(`SELECT ${COLUMNS} FROM datasets WHERE sha256 = ?`);
  const insert = db.prepare(
    `INSERT INTO datasets (sha256, rel_path, bytes, files, name, created_at)
     VALUES (@sha256, @relPath, @bytes, @files, @name, @createdAt) ON CONFLICT (sha256) DO NOTHING`,
  );
  const remove = db.prepare<[string]>('DELETE FROM datasets WHERE sha256 = ?');
  const page = db.prepare<[number, string, number], Dataset>(
    `SELECT ${COLUMNS} FROM datasets WHERE (created_at, sha256) < (?, ?) ORDER BY created_at DESC, sha256 DESC LIMIT ?`,
  );
  const all = db.prepare<[], Dataset>(`SELECT ${COLUMNS} FROM datasets`);
  return {
    find: (sha256) => find.get(sha256) ?? null,
    record: (dataset) => {
      insert.run(dataset);
      return find.get(dataset.sha256) ?? dataset;
    },
    forget: (sha256) => void remove.run(sha256),
    page: (limit: number, after: DatasetCursor | null) =>
      page.all(after?.createdAt ?? Number.MAX_SAFE_INTEGER, after?.sha256 ?? 'g', limit),
    all: () => all.all(),
  };
}
