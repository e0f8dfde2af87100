import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import type { Engine } from './engine.ts';

export const TOKEN = 'token-of-the-docker-test';

export interface Health {
  readonly status: number;
  readonly ok: boolean;
  readonly slurm: boolean;
  readonly b2_mounted: boolean;
  readonly [more: string]: unknown;
}

export interface Job {
  readonly job_id: number;
  readonly status: string;
  readonly done: boolean;
  readonly meta: Readonly<Record<string, unknown>>;
}

/** One running container of the image. */
export interface Appliance {
  readonly name: string;
  readonly url: string;
  health(): Promise<Health | null>;
  upload(name: string, bytes: string): Promise<string>;
  submit(fields: Readonly<Record<string, string>>): Promise<number>;
  job(id: number): Promise<Job>;
  get(path: string): Promise<{ readonly status: number; readonly text: string }>;
  logs(): Promise<string>;
}

export async function startContainer(engine: Engine, name: string, args: readonly string[]): Promise<Appliance> {
  await engine.docker(['run', '--detach', '--name', name, '--publish', '127.0.0.1:0:8080', ...args]);
  const address = (await engine.docker(['port', name, '8080/tcp'])).split('\n')[0] ?? '';
  return applianceAt(engine, name, `http://${address}`);
}

/** AbortSignal.timeout would not keep a test alive that waits for nothing else. The body has arrived when it resolves. */
async function ask(url: string, init: RequestInit, milliseconds: number): Promise<Response> {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), milliseconds);
  try {
    const response = await fetch(url, { ...init, signal: controller.signal });
    return new Response(await response.arrayBuffer(), { status: response.status, headers: response.headers });
  } finally {
    clearTimeout(timer);
  }
}

function applianceAt(engine: Engine, name: string, url: string): Appliance {
  const call = (path: string, init: RequestInit = {}) =>
    ask(`${url}${path}`, { ...init, headers: { authorization: `Bearer ${TOKEN}` } }, 20_000);
  const post = async (path: string, fields: Readonly<Record<string, string | File>>) => {
    const body = new FormData();
    for (const [field, value] of Object.entries(fields)) body.append(field, value);
    const response = await call(path, { method: 'POST', body });
    const text = await response.text();
    assert.equal(response.status, 200, `POST ${path}: ${text}`);
    return JSON.parse(text) as Record<string, unknown>;
  };
  return {
    name,
    url,
    async health() {
      try {
        const response = await ask(`${url}/health`, {}, 5000);
        return { ...((await response.json()) as Omit<Health, 'status'>), status: response.status } as Health;
      } catch {
        return null;
      }
    },
    async upload(file, bytes) {
      const sha256 = createHash('sha256').update(bytes).digest('hex');
      assert.equal((await post('/datasets/upload', { file: new File([bytes], file), sha256 })).sha256, sha256);
      return sha256;
    },
    submit: async (fields) => Number((await post('/jobs', fields)).job_id),
    job: async (id) => (await (await call(`/jobs/${id}`)).json()) as Job,
    async get(path) {
      const response = await call(path);
      return { status: response.status, text: await response.text() };
    },
    logs: async () => (await engine.tried(['logs', '--tail', '60', name])).text,
  };
}

export async function until<T>(
  what: string,
  seconds: number,
  look: () => Promise<T | null | undefined | false>,
): Promise<T> {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) assert.fail(`not within ${seconds} s: ${what}`);
    await pause(100);
  }
}

/** Resolves with how long it took, in seconds. On failure the container's own words are shown. */
export async function ready(appliance: Appliance, seconds = 40): Promise<number> {
  const started = performance.now();
  try {
    await until('the appliance is ready', seconds, async () => (await appliance.health())?.ok === true);
  } catch (error) {
    console.log(`--- ${appliance.name}\n${await appliance.logs()}`);
    throw error;
  }
  return (performance.now() - started) / 1000;
}

export async function ended(appliance: Appliance, id: number, status: string, seconds = 60): Promise<Job> {
  let last: Job | null = null;
  try {
    return await until(`job ${id} is ${status}`, seconds, async () => {
      last = await appliance.job(id);
      if (last.done) assert.equal(last.status, status);
      return last.done && last;
    });
  } catch (error) {
    console.log(`--- job ${id}: ${JSON.stringify(last)}\n--- ${appliance.name}\n${await appliance.logs()}`);
    throw error;
  }
}
