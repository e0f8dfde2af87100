import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type RunningAppliance, startAppliance } from '../house/appliance.ts';
import { runJob, uploadBytes } from '../house/client.ts';

/** A job that tries to break out. Each attempt is a line of bash that succeeds only if the break-in does. */
const ATTEMPTS: Readonly<Record<string, string>> = {
  'read the token file': 'cat "$ROOT/token"',
  'read the database': 'head -c 100 "$ROOT/jr_slurm.db"',
  "read the database's log": 'head -c 1 "$ROOT/jr_slurm.db-wal"',
  'list the root folder': 'ls "$ROOT"',
  "read the API's environment": 'grep -q . "/proc/$API/environ"',
  "read the parent's environment": 'grep -q . "/proc/$PARENT/environ"',
  "read the API's memory map": 'grep -q . "/proc/$API/maps"',
  "open the API's files": 'ls "/proc/$API/fd/"',
  'signal the API': 'kill -0 "$API"',
  'signal the parent': 'kill -0 "$PARENT"',
  'add to the dataset': 'touch "$DATASET_DIR/added"',
  "change the dataset's file": 'echo changed >> "$DATASET_DIR/data.txt"',
  "remove the dataset's file": 'rm -f "$DATASET_DIR/data.txt" && [ ! -e "$DATASET_DIR/data.txt" ]',
  'rename the dataset': 'mv "$DATASET_DIR" "$DATASET_DIR.old"',
  "change the dataset's mode": 'chmod u+w "$DATASET_DIR/data.txt"',
  'add a dataset': 'mkdir "$ROOT/datasets/$(printf %064d 0)"',
  'enter the staging folder': 'ls "$ROOT/staging"',
  'write a batch script': 'echo id >> "$ROOT/jobs/$JR_JOB_ID/script.sh"',
  'remove a batch script': 'rm -f "$ROOT/jobs/$JR_JOB_ID/script.sh" && [ ! -e "$ROOT/jobs/$JR_JOB_ID/script.sh" ]',
  'put a link in the place of a log': 'ln -sf /etc/shadow "$ROOT/logs/$JR_JOB_ID.log"',
  'add a template': 'mkdir "$ROOT/templates/mine"',
  'read the munge key': 'cat "$(find "$ROOT/slurm" "$ROOT/run" -name "munge*key" 2>/dev/null | grep .)"',
  "write Slurm's configuration": 'echo "SlurmUser=root" >> "$ROOT/slurm/etc/slurm.conf"',
  "read Slurm's state": 'ls "$ROOT/slurm/state"',
  "write a daemon's service folder": 'find "$ROOT/run" -writable -not -type l -not -type s 2>/dev/null | grep .',
  'become root by sudo': 'sudo -n true',
  'become root by Slurm': 'scontrol update NodeName=node0 State=DOWN Reason=mine',
};

let appliance: RunningAppliance;

before(async () => {
  appliance = await startAppliance({ env: { JR_AUTH_TOKEN: 'a-token-that-nobody-shall-see' } });
  const folder = join(appliance.root, 'templates', 'burglar');
  mkdirSync(folder);
  writeFileSync(join(folder, 'template.yaml'), 'title: A job that tries to break out\nparams: { type: object }\n');
  const lines = Object.entries(ATTEMPTS).map(([name, attempt], index) =>
    [
      `attempt_${index}() { ${attempt}; }`,
      `if ( attempt_${index} ) >/dev/null 2>&1; then echo ${JSON.stringify(name)} >> "$RESULT_DIR/broken.txt"; fi`,
    ].join('\n'),
  );
  writeFileSync(
    join(folder, 'run.sh'),
    `set +eu
ROOT=$(dirname "$(dirname "$DATASET_DIR")")
PARENT=${appliance.daemonPid('api')}
read -r API _ <"/proc/$PARENT/task/$PARENT/children"
touch "$RESULT_DIR/broken.txt"
id -u > "$RESULT_DIR/uid.txt"
env > "$RESULT_DIR/environment.txt"
${lines.join('\n')}
`,
  );
});
after(() => appliance.remove());

test('a job cannot read the token, the database or another user, and cannot change a dataset or the appliance', async () => {
  const sha = await uploadBytes(appliance, 'data.txt', Buffer.from('untouched\n'));
  const job = await runJob(appliance, { dataset_sha: sha, command_key: 'burglar', gpus: 0, cpus: 1, mem_gb: 1 });
  assert.equal(job.status, 'COMPLETED', JSON.stringify(job));
  const result = join(appliance.root, 'results', String(job.job_id));
  assert.deepEqual(readFileSync(join(result, 'broken.txt'), 'utf8').split('\n').filter(Boolean), []);
  assert.notEqual(readFileSync(join(result, 'uid.txt'), 'utf8').trim(), '0');
  assert.equal(readFileSync(join(appliance.root, 'datasets', sha, 'data.txt'), 'utf8'), 'untouched\n');
  assert.ok(!readFileSync(join(result, 'environment.txt'), 'utf8').includes('a-token-that-nobody-shall-see'));
});

test('the token stands in no argument list, log, batch script or database page', async () => {
  const secret = Buffer.from('a-token-that-nobody-shall-see');
  for (const entry of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    let argv: Buffer;
    try {
      argv = readFileSync(`/proc/${entry}/cmdline`);
    } catch {
      continue; // it has ended
    }
    assert.ok(!argv.includes(secret), `process ${entry} shows the token`);
  }
  for (const entry of readdirSync(appliance.root, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || entry.name === 'token') continue;
    const path = join(entry.parentPath, entry.name);
    assert.ok(!readFileSync(path).includes(secret), `${path} holds the token`);
  }
});
