import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathsIn } from '../../storage/paths.ts';
import { bundles } from './bundle.ts';
import { type DataSettings, GENEROUS } from './data-settings.ts';

/** A number that is nobody's: the API of these tests is a user without any right, as in the appliance. */
const API_UID = 61_001;

/** A JR_ROOT of its own, as far as datasets need one. */
export function dataRoot(): { readonly paths: ReturnType<typeof pathsIn>; remove(): void } {
  const root = mkdtempSync(join(tmpdir(), 'jr-test-data-'));
  const paths = pathsIn(root);
  chmodSync(root, 0o755);
  chownSync(root, API_UID, API_UID);
  mkdirSync(paths.datasets);
  chownSync(paths.datasets, API_UID, API_UID);
  chmodSync(paths.datasets, 0o2755);
  return { paths, remove: () => rmSync(root, { recursive: true, force: true }) };
}

export interface DataAppliance {
  readonly url: string;
  readonly parentPid: number;
  readonly apiPid: number;
  /** Resolves when both processes are gone. */
  readonly gone: Promise<void>;
  stop(): Promise<void>;
  fetch(path: string, init?: RequestInit): Promise<Response>;
  upload(content: Uint8Array, name: string, fields?: Record<string, string>): Promise<Response>;
}

/** Starts the parent and the API below `root` and waits until it answers. */
export async function startData(root: string, changes: Partial<DataSettings> = {}): Promise<DataAppliance> {
  const programs = await bundles();
  const settings: DataSettings = {
    root,
    programs,
    uid: API_UID,
    gid: API_UID,
    limits: GENEROUS,
    importRoots: [],
    dieAt: null,
    needed: [],
    ...changes,
  };
  const parent = spawn(process.execPath, [join(programs, 'data-parent.mjs'), JSON.stringify(settings)], {
    env: {},
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const gone = new Promise<void>((resolve) => parent.once('close', () => resolve()));
  const [, port, pid] = await firstLine(parent);
  const url = `http://127.0.0.1:${port}`;
  const headers = { authorization: 'Bearer secret' };
  return {
    url,
    parentPid: parent.pid ?? 0,
    apiPid: Number(pid),
    gone,
    stop: async () => {
      parent.kill('SIGTERM');
      await gone;
    },
    fetch: (path, init = {}) =>
      fetch(`${url}${path}`, { ...init, headers: { ...headers, ...(init.headers as Record<string, string>) } }),
    upload: (content, name, fields = {}) => {
      const form = new FormData();
      form.set('file', new Blob([Uint8Array.from(content)]), name);
      for (const [field, value] of Object.entries(fields)) form.set(field, value);
      return fetch(`${url}/datasets/upload`, { method: 'POST', headers, body: form });
    },
  };
}

function firstLine(parent: ChildProcess): Promise<RegExpExecArray> {
  return new Promise((resolve, reject) => {
    let said = '';
    parent.once('close', () => reject(new Error(`the parent ended before it was ready: ${said}`)));
    parent.stdout?.setEncoding('utf8').on('data', (text: string) => {
      said += text;
      const match = /port (\d+) rss (\d+)/.exec(said);
      if (match !== null) resolve(match);
    });
  });
}

export function leftInStaging(root: string): readonly string[] {
  return readdirSync(pathsIn(root).staging);
}
