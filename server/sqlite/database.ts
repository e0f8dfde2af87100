import Database from 'better-sqlite3';
import { AppError } from '../core/errors.ts';
import { adoptOriginal } from './adopt-original.ts';
import { MIGRATIONS } from './migrations.ts';

export type Db = Database.Database;

/**
 * Opens `jr_slurm.db`, brings its schema up to date and returns it. Refuses a database that a newer JobRunner wrote.
 *
 * WAL, so that readers never wait for the writer; `synchronous=FULL`, because a job's id must be on the disk before Slurm hears of
 * it (in WAL mode NORMAL would lose the last commits when the machine dies: https://www.sqlite.org/pragma.html#pragma_synchronous).
 *
 * @param nativeBinding path of `better_sqlite3.node` when the code runs bundled; undefined lets the package find its own.
 */
export function openDatabase(path: string, nativeBinding?: string): Db {
  const db = new Database(path, nativeBinding === undefined ? {} : { nativeBinding });
  db.pragma('journal_mode = WAL');
  db.pragma('synchronous = FULL');
  db.pragma('foreign_keys = ON');
  db.pragma('busy_timeout = 5000');
  migrate(db);
  return db;
}

function migrate(db: Db): void {
  const version = db.pragma('user_version', { simple: true }) as number;
  if (version > MIGRATIONS.length) {
    throw new AppError(
      'internal',
      `the database was written by a newer JobRunner (schema ${version}, this one knows ${MIGRATIONS.length}): start that one, or restore a copy`,
    );
  }
  db.transaction(() => {
    const original = version === 0 ? adoptOriginal(db) : null;
    for (const [index, sql] of MIGRATIONS.entries()) {
      if (index >= version) db.exec(sql);
    }
    original?.copyInto(db);
    db.pragma(`user_version = ${MIGRATIONS.length}`);
  })();
}
