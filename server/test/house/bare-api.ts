import { createHash } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { composeApi } from '../../compose.ts';
import { AppError } from '../../core/errors.ts';
import type { Operation } from '../../parent/protocol.ts';
import { pathsIn } from '../../storage/paths.ts';

export interface BareApi {
  readonly baseUrl: string;
  readonly token: string;
  /** What the API asked the root parent for, beside looking at Slurm. */
  readonly asked: () => readonly Operation[];
  /** A dataset of one small file; its SHA-256. */
  readonly addDataset: (content: string) => Promise<string>;
  readonly stop: () => Promise<void>;
}

/** The API as it is, on a real socket and a real database, but with nobody behind it: what it asks for is noted and refused. */
export async function startBareApi(node: {
  readonly cpus: number;
  readonly memoryMiB: number;
  readonly gpus: number;
}): Promise<BareApi> {
  const root = mkdtempSync(join(tmpdir(), 'jr-bare-'));
  chmodSync(root, 0o755);
  const paths = pathsIn(root);
  for (const folder of [paths.datasets, paths.staging, paths.jobs, paths.results, paths.logs, paths.witness]) {
    mkdirSync(folder);
  }
  mkdirSync(join(root, 'slurm', 'events'), { recursive: true });
  writeFileSync(paths.jobCompletion, '');
  const asked: Operation[] = [];
  const token = 'bare-token';
  const api = composeApi({
    log: pino({ level: 'silent' }),
    async ask(operation) {
      if (operation !== 'observe' && operation !== 'node') asked.push(operation);
      throw new AppError('unavailable', 'there is no parent');
    },
    start: {
      event: 'start',
      version: 'test',
      root,
      nativeBinding: '',
      templates: fileURLToPath(new URL('../../templates/builtin', import.meta.url)),
      token,
      host: '127.0.0.1',
      port: 0,
      generation: 'test',
      submitUid: 0,
      bucketEnabled: false,
      limits: { uploadBytes: 1e9, unpackedBytes: 1e9, unpackRatio: 200, entries: 1000, minFreeBytes: 0 },
      node: {
        nodeName: 'node0',
        cpus: node.cpus,
        memoryMiB: node.memoryMiB,
        gpuType: 'gpu',
        maxTimeSeconds: 7 * 86400,
        gpus: Array.from({ length: node.gpus }, (_, index) => ({ index, file: `/dev/null`, uuid: null, name: null })),
      },
    },
  });
  await api.begin();
  const server = createServer(api.app);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    baseUrl,
    token,
    asked: () => asked,
    async addDataset(content) {
      const form = new FormData();
      form.set('file', new Blob([content]), 'data.txt');
      const headers = { authorization: `Bearer ${token}` };
      const answer = await fetch(`${baseUrl}/datasets/upload`, { method: 'POST', body: form, headers });
      if (answer.status !== 200) throw new Error(await answer.text());
      return createHash('sha256').update(content).digest('hex');
    },
    async stop() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await api.end();
      rmSync(root, { recursive: true, force: true });
    },
  };
}
