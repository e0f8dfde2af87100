/**
 * The schema's history: append only, one entry a step, run in order and in one transaction. `PRAGMA user_version` counts them.
 * Times are milliseconds since the epoch.
 */
export const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE datasets (
    sha256     TEXT PRIMARY KEY,
    rel_path   TEXT NOT NULL,
    bytes      INTEGER NOT NULL,
    files      INTEGER NOT NULL,
    name       TEXT NOT NULL,
    created_at INTEGER NOT NULL
  ) STRICT;

  -- AUTOINCREMENT: an id is never used twice, also after rows were deleted (https://www.sqlite.org/autoinc.html).
  CREATE TABLE jobs (
    id                  INTEGER PRIMARY KEY AUTOINCREMENT,
    spec                TEXT NOT NULL,              -- JobSpec as JSON
    phase               TEXT NOT NULL,
    state               TEXT NOT NULL,              -- JobState as JSON; phase repeats its tag for the index
    created_at          INTEGER NOT NULL,
    cancel_requested_at INTEGER
  ) STRICT;
  CREATE INDEX jobs_unfinished ON jobs (id) WHERE phase <> 'finished';

  CREATE TABLE outputs (
    experiment_id TEXT NOT NULL,
    output_id     TEXT NOT NULL,
    job_id        INTEGER NOT NULL,
    path          TEXT NOT NULL,
    bytes         INTEGER NOT NULL,
    weights       INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    -- Newest job first: the first row of an id is the one that holds it.
    PRIMARY KEY (experiment_id, output_id, job_id DESC)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX outputs_by_job ON outputs (job_id, output_id);
  `,
];
