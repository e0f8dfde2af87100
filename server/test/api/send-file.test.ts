import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import express from 'express';
import pino from 'pino';
import request from 'supertest';
import { problemHandler } from '../../api/problem.ts';
import { contentTypeOf, sendOpenFile } from '../../api/send-file.ts';

const CONTENT = '0123456789';
const MODIFIED = new Date('2024-05-01T10:00:00.250Z');

function serve(t: TestContext, content: string | Buffer = CONTENT, name = 'model.pth') {
  const folder = mkdtempSync(join(tmpdir(), 'jr-send-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, 'file');
  writeFileSync(path, content);
  utimesSync(path, MODIFIED, MODIFIED);
  const app = express();
  app.get('/file', async (req, res) => {
    const handle = await open(path);
    const { size, mtimeMs } = await handle.stat();
    await sendOpenFile(req, res, {
      handle,
      size,
      mtimeMs,
      name,
      contentType: contentTypeOf(name),
      disposition: 'attachment',
    });
  });
  app.use(problemHandler(pino({ level: 'silent' })));
  return { app, path };
}

test('the whole file comes with its size, its validators and headers that let no browser run it', async (t) => {
  const { app } = serve(t);
  const answer = await request(app).get('/file').expect(200);
  assert.equal(answer.body.toString(), CONTENT);
  assert.equal(answer.headers['content-length'], '10');
  assert.equal(answer.headers['content-type'], 'application/octet-stream');
  assert.equal(answer.headers['content-disposition'], 'attachment; filename="model.pth"');
  assert.equal(answer.headers['accept-ranges'], 'bytes');
  assert.equal(answer.headers['last-modified'], 'Wed, 01 May 2024 10:00:00 GMT');
  assert.match(answer.headers.etag ?? '', /^"[0-9a-f-]+"$/);
  assert.equal(answer.headers['x-content-type-options'], 'nosniff');
  assert.match(answer.headers['content-security-policy'] ?? '', /sandbox/);
});

test('one range is answered with its bytes, as RFC 9110 has it', async (t) => {
  const { app } = serve(t);
  for (const [range, status, contentRange, body] of [
    ['bytes=0-3', 206, 'bytes 0-3/10', '0123'],
    ['bytes=4-', 206, 'bytes 4-9/10', '456789'],
    ['bytes=-3', 206, 'bytes 7-9/10', '789'],
    ['bytes=-50', 206, 'bytes 0-9/10', CONTENT],
    ['bytes=9-9', 206, 'bytes 9-9/10', '9'],
    ['bytes=5-999999999999', 206, 'bytes 5-9/10', '56789'],
    ['BYTES=0-0', 206, 'bytes 0-0/10', '0'],
    ['bytes=10-', 416, 'bytes */10', null],
    ['bytes=-0', 416, 'bytes */10', null],
    ['bytes=5-3', 200, undefined, CONTENT],
    ['bytes=0-1,4-5', 200, undefined, CONTENT],
    ['bytes=a-b', 200, undefined, CONTENT],
    ['bytes=', 200, undefined, CONTENT],
    ['lines=0-1', 200, undefined, CONTENT],
    ['bytes=--1', 200, undefined, CONTENT],
  ] as const) {
    const answer = await request(app).get('/file').set('Range', range).buffer(true).expect(status);
    assert.equal(answer.headers['content-range'], contentRange, range);
    if (body !== null) assert.equal(answer.body.toString(), body, range);
    else assert.equal(JSON.parse(answer.text ?? answer.body.toString()).code, 'range_not_satisfiable');
  }
});

test('an empty file has no range', async (t) => {
  const { app } = serve(t, '');
  const answer = await request(app).get('/file').expect(200);
  assert.equal(answer.headers['content-length'], '0');
  await request(app).get('/file').set('Range', 'bytes=0-').expect(416);
});

test('a copy that is current is not sent again, and one that is not is sent whole', async (t) => {
  const { app } = serve(t);
  const { headers } = await request(app).get('/file');
  const etag = headers.etag ?? '';
  for (const [name, value, status] of [
    ['If-None-Match', etag, 304],
    ['If-None-Match', `W/${etag}, "x"`, 304],
    ['If-None-Match', '*', 304],
    ['If-None-Match', '"x"', 200],
    ['If-Modified-Since', 'Wed, 01 May 2024 10:00:00 GMT', 304],
    ['If-Modified-Since', 'Wed, 01 May 2024 09:59:59 GMT', 200],
    ['If-Modified-Since', 'nonsense', 200],
  ] as const) {
    await request(app).get('/file').set(name, value).expect(status);
  }
  for (const [value, status] of [
    [etag, 206],
    [`W/${etag}`, 200],
    ['"x"', 200],
    ['Wed, 01 May 2024 10:00:00 GMT', 206],
    ['Wed, 01 May 2024 09:00:00 GMT', 200],
  ] as const) {
    await request(app).get('/file').set('Range', 'bytes=0-3').set('If-Range', value).expect(status);
  }
});

test('HEAD tells the same and sends nothing, whatever the range', async (t) => {
  const { app } = serve(t);
  const answer = await request(app).head('/file').set('Range', 'bytes=0-3').expect(200);
  assert.equal(answer.headers['content-length'], '10');
});

test('a name of any kind is carried and cannot add a header', async (t) => {
  for (const name of ['a"b.txt', 'ü日本.bin', 'x\r\nSet-Cookie: a=b', 'a;b', '%41', '\u202etxt.exe']) {
    const { app } = serve(t, CONTENT, name);
    const answer = await request(app).get('/file').expect(200);
    assert.match(answer.headers['content-disposition'] ?? '', /^attachment; filename/);
    assert.equal(answer.headers['set-cookie'], undefined);
  }
});

test('what a browser could run is sent as plain bytes', () => {
  for (const path of ['a.html', 'a.svg', 'a.xhtml', 'a.js', 'a.xml', 'a.pdf', 'a', 'a.constructor', 'a.HTM']) {
    assert.equal(contentTypeOf(path), 'application/octet-stream', path);
  }
  assert.equal(contentTypeOf('x/y.JSON'), 'application/json');
});

test('a time that no calendar knows is no error', async (t) => {
  const { app, path } = serve(t);
  for (const seconds of [-5_000_000_000, 15_000_000_000]) {
    utimesSync(path, seconds, seconds);
    const answer = await request(app).get('/file').expect(200);
    assert.ok(Date.parse(answer.headers['last-modified'] ?? '') <= Date.now());
  }
});

async function untilClosed(path: string): Promise<void> {
  const { readlinkSync } = await import('node:fs');
  const isOpen = () =>
    readdirSync('/proc/self/fd').some((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`) === path;
      } catch {
        return false;
      }
    });
  for (const end = Date.now() + 5000; isOpen(); ) {
    assert.ok(Date.now() < end, 'the file is still open');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

test('a client that goes away, or reads slowly, leaves no file open and no memory full', async (t) => {
  const { app, path } = serve(t, '');
  truncateSync(path, 4 * 1024 ** 3); // Holes only: it takes no space.
  const server = app.listen(0);
  t.after(() => server.close());
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
  socket.write('GET /file HTTP/1.1\r\nHost: x\r\n\r\n');
  await new Promise((resolve) => socket.once('data', resolve));
  socket.pause();
  const before = process.memoryUsage().rss;
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.ok(process.memoryUsage().rss - before < 64 * 1024 ** 2, 'it waits for the reader');
  socket.destroy();
  await untilClosed(path);
});

test('a file that shrinks while it is sent ends the connection, and nobody waits for ever', async (t) => {
  const { app, path } = serve(t, '');
  truncateSync(path, 1024 ** 3);
  const server = app.listen(0);
  t.after(() => server.close());
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
  socket.write('GET /file HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n');
  await new Promise((resolve) => socket.once('data', resolve));
  truncateSync(path, 0);
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.on('error', () => undefined);
  socket.resume();
  await closed;
  await untilClosed(path);
});
