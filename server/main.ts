import { createServer } from 'node:http';
import { Socket } from 'node:net';
import { pino } from 'pino';
import { createApp } from './api/app.ts';
import { healthRoutes } from './api/jobrunner/health.routes.ts';
import { AppError } from './core/errors.ts';
import { connect } from './parent/channel.ts';
import { watchHealth } from './runner/health.ts';
import { parseNode } from './slurm/node-state.ts';
import { openDatabase } from './sqlite/database.ts';
import { pathsIn } from './storage/paths.ts';

/** Requests that are under way when we are told to stop have this long to end. */
const FINISH_MILLISECONDS = 4000;

const log = pino({ base: null, timestamp: pino.stdTimeFunctions.isoTime });
const channel = new Socket({ fd: 3, readable: true, writable: true });
const parent = connect(channel);
// The parent does what we may not: without it we are of no use, and it starts us again.
channel.on('close', () => process.exit(1));

const start = await parent.start;
const paths = pathsIn(start.root);
const db = openDatabase(paths.database, start.nativeBinding);

const health = watchHealth(async () => {
  const { node } = await parent.ask('node', {});
  const report = parseNode(node);
  if (report === null) throw new AppError('unavailable', 'scontrol answered, but not about our node');
  return report;
});
parent.onStatus(health.onStatus);

const app = createApp({
  token: start.token,
  version: start.version,
  log,
  routes: [...healthRoutes({ version: start.version, node: start.node, health: health.current })],
});

const server = createServer(app);
server.on('error', (error) => {
  log.fatal({ err: error }, 'cannot listen');
  process.exit(1);
});
server.listen({ host: start.host, port: start.port }, () => {
  log.info({ host: start.host, port: start.port, version: start.version }, 'listening');
});

const stop = () => {
  log.info('stopping');
  health.stop();
  server.close(() => {
    db.close();
    process.exit(0);
  });
  server.closeIdleConnections();
  setTimeout(() => server.closeAllConnections(), FINISH_MILLISECONDS).unref();
};
process.once('SIGTERM', stop);
process.once('SIGINT', stop);
