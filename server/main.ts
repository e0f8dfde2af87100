import { createServer } from 'node:http';
import { Socket } from 'node:net';
import { pino } from 'pino';
import { composeApi } from './compose.ts';
import { connect } from './parent/channel.ts';

/** Requests that are under way when we are told to stop have this long to end. */
const FINISH_MILLISECONDS = 4000;
/** Uploads may take days; what must not is a client that sends its headers a byte at a time. */
const HEADERS_MILLISECONDS = 30_000;

/**
 * The API process: no rights, no environment. All that it needs comes over descriptor 3 from the root parent, which does for it what it
 * may not do itself. Without the parent it is of no use: it ends, and s6 starts the pair again.
 */
const log = pino({ base: null, timestamp: pino.stdTimeFunctions.isoTime });
const channel = new Socket({ fd: 3, readable: true, writable: true });
const parent = connect(channel);
channel.on('close', () => process.exit(1));

const start = await parent.start;
const api = composeApi({ start, ask: parent.ask, log });
parent.onStatus(api.onStatus);
await api.begin();

const server = createServer({ requestTimeout: 0, headersTimeout: HEADERS_MILLISECONDS }, api.app);
server.on('error', (error) => {
  log.fatal({ err: error }, 'cannot listen');
  process.exit(1);
});
server.listen({ host: start.host, port: start.port }, () => {
  log.info({ host: start.host, port: start.port, version: start.version }, 'listening');
});

const stop = () => {
  log.info('stopping');
  server.close(async () => {
    await api.end();
    process.exit(0);
  });
  server.closeIdleConnections();
  setTimeout(() => server.closeAllConnections(), FINISH_MILLISECONDS).unref();
};
process.once('SIGTERM', stop);
process.once('SIGINT', stop);
