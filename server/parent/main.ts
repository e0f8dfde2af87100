import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { type ApplianceFacts, readFacts, SYSTEM_PATH } from '../appliance/facts.ts';
import { readSettings, type Settings } from '../config.ts';
import { pathsIn } from '../storage/paths.ts';
import { announceWhenReady } from './announce.ts';
import { type BucketState, startBucketProbe } from './bucket-probe.ts';
import { serve } from './channel.ts';
import { daemonStates } from './daemons.ts';
import { createHandlers } from './ops/index.ts';
import { emptyStaging } from './ops/staging-folder.ts';
import type { StartMessage, StatusMessage } from './protocol.ts';

/** s6 reads our readiness from this descriptor (`notification-fd`). */
const NOTIFY_DESCRIPTOR = 3;
const API_STOP_MILLISECONDS = 6000;

const root = process.argv[2];
if (root === undefined) throw new Error('usage: parent.mjs JR_ROOT');
run(readFacts(root), readSettings(process.env).settings);

/**
 * The root parent: small, and the only one with rights. It starts the API as a user without any, hands it its settings, and does for
 * it what `protocol.ts` lists. The two live and die together; s6 starts the pair again.
 */
function run(facts: ApplianceFacts, settings: Settings): void {
  // Whatever a child of ours makes is closed to others unless it says otherwise.
  process.umask(0o022);
  const token = settings.JR_AUTH_TOKEN ?? readFileSync(pathsIn(facts.root).token, 'utf8').trim();
  // Whoever worked there died with the parent before us.
  emptyStaging(pathsIn(facts.root), facts.api);
  const api = spawnApi(facts);
  const channel = api.stdio[3] as Duplex;
  const bucket = watchBucket(settings, facts.root);
  const bucketProblem = () => (bucket().mounted ? null : (bucket().problem ?? 'it is not mounted yet'));
  const tell = serve(channel, createHandlers(facts, settings, bucketProblem));
  tell(startMessageOf(facts, settings, token));
  reportStatus(facts.root, bucket, tell);
  const announcer = announceWhenReady(facts, token, NOTIFY_DESCRIPTOR);

  const stop = () => {
    announcer.stop();
    api.kill('SIGTERM');
    setTimeout(() => api.kill('SIGKILL'), API_STOP_MILLISECONDS).unref();
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  channel.on('error', () => {});
  api.on('error', (error) => {
    process.stderr.write(`jobrunner: cannot start the API: ${error.message}\n`);
    process.exit(1);
  });
  api.on('exit', (code, signal) => process.exit(signal === null ? (code ?? 1) : 1));
}

/** No groups beside its own, no environment, no descriptor but the channel. */
function spawnApi({ api, app, nodeBinary }: ApplianceFacts): ChildProcess {
  return spawn(
    'setpriv',
    [
      `--reuid=${api.uid}`,
      `--regid=${api.gid}`,
      '--clear-groups',
      '--no-new-privs',
      '--bounding-set=-all',
      '--inh-caps=-all',
      nodeBinary,
      // Small boxes are rented too: rather collect more often than grow.
      '--max-semi-space-size=8',
      '--max-old-space-size=160',
      '--enable-source-maps',
      join(app, 'api.mjs'),
    ],
    {
      cwd: '/',
      env: { PATH: SYSTEM_PATH, NODE_ENV: 'production', LC_ALL: 'C.UTF-8' },
      stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
    },
  );
}

/** What the last probe of the bucket's mount told; and says it to people when it changes. */
function watchBucket(settings: Settings, root: string): () => BucketState {
  let bucket: BucketState = { mounted: false, problem: null };
  startBucketProbe(settings, root, (state) => {
    bucket = state;
    if (state.mounted) process.stderr.write('jobrunner: the bucket is mounted\n');
    else if (state.problem !== null) process.stderr.write(`jobrunner: the bucket is not mounted: ${state.problem}\n`);
  });
  return () => bucket;
}

function reportStatus(root: string, bucket: () => BucketState, tell: (message: StatusMessage) => void): void {
  let last = '';
  let quietTicks = 0;
  const look = () => {
    const status: StatusMessage = {
      event: 'status',
      daemons: daemonStates(root),
      bucketMounted: bucket().mounted,
      bucketProblem: bucket().problem,
    };
    const text = JSON.stringify(status);
    if (text === last && ++quietTicks < 5) return;
    last = text;
    quietTicks = 0;
    tell(status);
  };
  look();
  setInterval(look, 200).unref();
}

function startMessageOf(facts: ApplianceFacts, settings: Settings, token: string): StartMessage {
  return {
    event: 'start',
    version: facts.version,
    root: facts.root,
    nativeBinding: join(facts.app, 'better_sqlite3.node'),
    templates: join(facts.app, 'templates'),
    token,
    host: facts.host,
    port: facts.port,
    generation: facts.generation,
    submitUid: facts.submit.uid,
    bucketEnabled: settings.JR_B2_ENABLE,
    limits: {
      uploadBytes: settings.JR_MAX_UPLOAD_BYTES,
      unpackedBytes: settings.JR_MAX_UNPACKED_BYTES,
      unpackRatio: settings.JR_MAX_UNPACK_RATIO,
      entries: settings.JR_MAX_ENTRIES,
      minFreeBytes: settings.JR_MIN_FREE_BYTES,
    },
    node: facts.node,
  };
}
