import { Socket } from 'node:net';
import { pino } from 'pino';
import { createApp } from '../../api/app.ts';
import { datasetRoutes } from '../../api/jobrunner/datasets.routes.ts';
import { connect } from '../../parent/channel.ts';
import { datasets } from '../../runner/datasets.ts';
import { openDatabase } from '../../sqlite/database.ts';
import { datasetStore } from '../../sqlite/dataset-store.ts';
import { pathsIn } from '../../storage/paths.ts';
import type { DataSettings } from './data-settings.ts';

/** The API with nothing but datasets, as the user that it is for: prints its port when it is ready. */
const settings = JSON.parse(process.argv[2] ?? '') as DataSettings;
const paths = pathsIn(settings.root);
const channel = new Socket({ fd: 3 });
channel.once('close', () => process.exit(1));
const { ask } = connect(channel);
const store = datasets({
  paths,
  ask,
  records: datasetStore(openDatabase(paths.database, `${settings.programs}/better_sqlite3.node`)),
  limits: settings.limits,
  isNeeded: (sha256) => settings.needed.includes(sha256),
  now: Date.now,
  onStep: (step) => {
    if (step === settings.dieAt) process.kill(process.pid, 'SIGKILL');
  },
});
await store.repair();
const routes = datasetRoutes({ datasets: store, limits: settings.limits });
const app = createApp({ token: 'secret', version: 'test', log: pino({ level: 'error' }), routes });
const server = app.listen(0, '127.0.0.1', () => {
  const address = server.address();
  console.log(`port ${typeof address === 'object' ? address?.port : ''} rss ${process.pid}`);
});
