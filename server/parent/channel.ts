import type { Duplex } from 'node:stream';
import type { z } from 'zod';
import { AppError, messageOf } from '../core/errors.ts';
import {
  type Ask,
  abortMessage,
  answerMessage,
  askMessage,
  type Handlers,
  OPERATIONS,
  type Operation,
  type StartMessage,
  type StatusMessage,
  startMessage,
  statusMessage,
} from './protocol.ts';

/** One JSON message a line over the socket pair between the root parent and the API. */
function onMessage(stream: Duplex, handle: (message: unknown) => void): void {
  let rest = '';
  stream.setEncoding('utf8');
  stream.on('data', (chunk: string) => {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) handle(JSON.parse(line));
  });
}

function send(stream: Duplex, message: object): void {
  if (stream.writable) stream.write(`${JSON.stringify(message)}\n`);
}

/** The parent's side: answers what the API asks by the handlers. Returns how to tell the API something unasked. */
export function serve(stream: Duplex, handlers: Handlers): (message: StartMessage | StatusMessage) => void {
  const running = new Map<number, AbortController>();
  const ask = async ({ id, op, request }: z.output<typeof askMessage>) => {
    const abort = new AbortController();
    running.set(id, abort);
    try {
      const operation = Object.hasOwn(OPERATIONS, op) ? (op as Operation) : null;
      if (operation === null) throw new AppError('forbidden', 'no such operation');
      const checked = OPERATIONS[operation].request.parse(request);
      // The schema of this very operation has just checked the request; TypeScript cannot follow the index.
      const handler = handlers[operation] as (request: unknown, signal: AbortSignal) => Promise<object>;
      send(stream, { id, ok: true, response: await handler(checked, abort.signal) });
    } catch (error) {
      const code = error instanceof AppError ? error.code : 'internal';
      send(stream, { id, ok: false, code, message: messageOf(error).slice(0, 4000) });
    } finally {
      running.delete(id);
    }
  };
  onMessage(stream, (message) => {
    const abort = abortMessage.safeParse(message);
    if (abort.success) running.get(abort.data.abort)?.abort();
    else void ask(askMessage.parse(message));
  });
  stream.on('close', () => {
    for (const abort of running.values()) abort.abort();
  });
  return (message) => send(stream, message);
}

export interface Parent {
  readonly ask: Ask;
  /** Resolves with the first message. */
  readonly start: Promise<StartMessage>;
  onStatus(listener: (status: StatusMessage) => void): void;
}

/** The API's side. */
export function connect(stream: Duplex): Parent {
  const waiting = new Map<number, { resolve: (value: never) => void; reject: (error: Error) => void; op: Operation }>();
  const listeners: ((status: StatusMessage) => void)[] = [];
  let last: StatusMessage | null = null;
  let next = 1;
  const started = deferred<StartMessage>();
  onMessage(stream, (message) => {
    const answer = answerMessage.safeParse(message);
    if (answer.success) {
      const asked = waiting.get(answer.data.id);
      waiting.delete(answer.data.id);
      if (asked === undefined) return;
      if (answer.data.ok) asked.resolve(OPERATIONS[asked.op].response.parse(answer.data.response) as never);
      else asked.reject(new AppError(answer.data.code, answer.data.message));
      return;
    }
    const status = statusMessage.safeParse(message);
    if (status.success) {
      last = status.data;
      for (const listener of listeners) listener(status.data);
      return;
    }
    started.resolve(startMessage.parse(message));
  });
  stream.on('close', () => {
    for (const { reject } of waiting.values()) reject(new AppError('unavailable', 'the root parent is gone'));
    waiting.clear();
  });
  const ask: Ask = (op, request, signal) =>
    new Promise((resolve, reject) => {
      const id = next++;
      waiting.set(id, { resolve: resolve as (value: never) => void, reject, op });
      send(stream, { id, op, request });
      signal?.addEventListener('abort', () => send(stream, { abort: id }), { once: true });
    });
  return {
    ask,
    start: started.promise,
    onStatus(listener) {
      listeners.push(listener);
      if (last !== null) listener(last);
    },
  };
}

function deferred<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => {};
  const promise = new Promise<T>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}
