import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';

export interface Target {
  readonly baseUrl: string;
  readonly token: string;
}

export interface JobAnswer {
  readonly job_id: number;
  readonly status: string;
  readonly done: boolean;
  readonly meta: Readonly<Record<string, unknown>>;
}

/** A call with the token; a fresh connection each time would hide nothing and cost a lot, so fetch's pool is kept. */
export function call(target: Target, path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  headers.set('authorization', `Bearer ${target.token}`);
  return fetch(target.baseUrl + path, { signal: AbortSignal.timeout(60_000), ...init, headers });
}

/** Uploads one file and returns its SHA-256. */
export async function uploadBytes(target: Target, name: string, bytes: Uint8Array): Promise<string> {
  const sha = createHash('sha256').update(bytes).digest('hex');
  const form = new FormData();
  form.set('file', new Blob([new Uint8Array(bytes)]), name);
  form.set('sha256', sha);
  const answer = await call(target, '/datasets/upload', { method: 'POST', body: form });
  assert.equal(answer.status, 200, await answer.clone().text());
  return sha;
}

export async function submitJob(target: Target, body: Readonly<Record<string, unknown>>): Promise<number> {
  const answer = await call(target, '/jobs', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  assert.equal(answer.status, 200, await answer.clone().text());
  return ((await answer.json()) as { job_id: number }).job_id;
}

/** Polls until `done`; fails after the time. */
export async function waitForJob(target: Target, id: number, milliseconds = 60_000): Promise<JobAnswer> {
  const until = Date.now() + milliseconds;
  for (;;) {
    const answer = await call(target, `/jobs/${id}`);
    assert.equal(answer.status, 200, await answer.clone().text());
    const job = (await answer.json()) as JobAnswer;
    if (job.done) return job;
    assert.ok(Date.now() < until, `job ${id} is still ${JSON.stringify(job)}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

export async function runJob(target: Target, body: Readonly<Record<string, unknown>>): Promise<JobAnswer> {
  return waitForJob(target, await submitJob(target, body));
}
