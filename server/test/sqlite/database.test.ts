import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import Database from 'better-sqlite3';
import { openDatabase } from '../../sqlite/database.ts';

function databasePath(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'jr-db-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, 'jr_slurm.db');
}

const SHA = 'AB'.repeat(32);

/** As the original service wrote it: SQLAlchemy-free Python, Slurm's job numbers, times as text. */
function writeOriginal(path: string): void {
  const db = new Database(path);
  db.exec(`
    CREATE TABLE datasets (sha256 TEXT PRIMARY KEY, rel_path TEXT NOT NULL, bytes INTEGER, created_at TEXT);
    CREATE TABLE jobs (job_id INTEGER PRIMARY KEY, dataset_sha TEXT, command_key TEXT, status TEXT, result_dir TEXT, created_at TEXT);
    CREATE TABLE outputs (experiment_id TEXT, output_id TEXT, path TEXT, job_id INTEGER, created_at TEXT,
      PRIMARY KEY (experiment_id, output_id));
    CREATE INDEX idx_outputs_exp ON outputs (experiment_id);
    CREATE INDEX outputs_by_job ON outputs (job_id);
  `);
  db.prepare('INSERT INTO datasets VALUES (?, ?, ?, ?)').run(SHA, `datasets/${SHA}`, 12, '2024-05-01T10:00:00Z');
  db.prepare('INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?)').run(
    41,
    SHA,
    'echo_params',
    'COMPLETED',
    'results/41',
    '2024-05-01 10:00:01',
  );
  const add = db.prepare('INSERT INTO outputs VALUES (?, ?, ?, ?, ?)');
  add.run('job-41', 'summary', 'result.json', 41, '2024-05-01 10:00:02');
  add.run('job-41', 'weights', '/opt/jobrunner/results/41/weights/model.pth', 41, '2024-05-01T10:00:02+00:00');
  add.run('job-41', 'log', 'results/41/train.log', 41, null);
  add.run('job-41', 'evil', '../../etc/shadow', 41, '2024-05-01 10:00:02');
  add.run('job-41', 'absolute', '/etc/shadow', 41, '2024-05-01 10:00:02');
  add.run('job-x', 'jobless', 'a', null, '2024-05-01 10:00:02');
  add.run('late', 'a', 'a', '57', 'nonsense');
  db.close();
}

test("the original's database is taken over: datasets and outputs stay, and its job numbers are never given out again", (t) => {
  const path = databasePath(t);
  writeOriginal(path);
  const db = openDatabase(path);
  t.after(() => db.close());
  assert.deepEqual(db.prepare('SELECT sha256, bytes, created_at FROM datasets').all(), [
    { sha256: SHA.toLowerCase(), bytes: 12, created_at: Date.parse('2024-05-01T10:00:00Z') },
  ]);
  assert.deepEqual(
    db.prepare('SELECT output_id, job_id, path, weights, created_at FROM outputs ORDER BY job_id, output_id').all(),
    [
      { output_id: 'log', job_id: 41, path: 'train.log', weights: 0, created_at: 0 },
      {
        output_id: 'summary',
        job_id: 41,
        path: 'result.json',
        weights: 0,
        created_at: Date.parse('2024-05-01T10:00:02Z'),
      },
      {
        output_id: 'weights',
        job_id: 41,
        path: 'weights/model.pth',
        weights: 1,
        created_at: Date.parse('2024-05-01T10:00:02Z'),
      },
      { output_id: 'a', job_id: 57, path: 'a', weights: 0, created_at: 0 },
    ],
  );
  assert.equal(db.prepare('SELECT count(*) FROM original_outputs').pluck().get(), 7, 'nothing is thrown away');
  const { lastInsertRowid } = db
    .prepare(`INSERT INTO jobs (spec, phase, state, created_at) VALUES ('{}', 'pending', '{}', 0)`)
    .run();
  assert.equal(lastInsertRowid, 58);
});

test('opening again changes nothing', (t) => {
  const path = databasePath(t);
  writeOriginal(path);
  openDatabase(path).close();
  const db = openDatabase(path);
  t.after(() => db.close());
  assert.equal(db.prepare('SELECT count(*) FROM outputs').pluck().get(), 4);
  assert.equal(db.pragma('integrity_check', { simple: true }), 'ok');
});

test('tables of the original that lack columns, or are missing, do not stop the start', (t) => {
  for (const sql of [
    'CREATE TABLE jobs (id INTEGER PRIMARY KEY); INSERT INTO jobs VALUES (7)',
    'CREATE TABLE outputs (experiment_id TEXT, output_id TEXT, path TEXT)',
    'CREATE TABLE datasets (sha256 TEXT PRIMARY KEY, rel_path TEXT NOT NULL)',
    'CREATE TABLE unrelated (x)',
  ]) {
    const path = databasePath(t);
    const before = new Database(path);
    before.exec(sql);
    before.close();
    openDatabase(path).close();
  }
});

test('a database that a newer version wrote is refused and left as it is', (t) => {
  const path = databasePath(t);
  const newer = openDatabase(path);
  newer.pragma('user_version = 999');
  newer.close();
  assert.throws(() => openDatabase(path), /written by a newer JobRunner \(schema 999/);
  const db = new Database(path);
  assert.equal(db.pragma('user_version', { simple: true }), 999);
  db.close();
});

test('the journal is on the disk before an answer is given', (t) => {
  const db = openDatabase(databasePath(t));
  t.after(() => db.close());
  assert.equal(db.pragma('journal_mode', { simple: true }), 'wal');
  assert.equal(db.pragma('synchronous', { simple: true }), 2);
  assert.equal(db.pragma('foreign_keys', { simple: true }), 1);
});
