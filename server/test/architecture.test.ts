import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const server = join(dirname(fileURLToPath(import.meta.url)), '..');
const sources = readdirSync(server, { recursive: true, encoding: 'utf8' }).filter(
  (file) => file.endsWith('.ts') && !file.startsWith('test/'),
);

/**
 * Which folders (or single files) a folder may import from. `compose.ts` wires the API, `main.ts` is the process around it: they may import everything and are in nobody's list.
 * `parent/protocol.ts` is the contract between the two processes, so that whoever asks the root parent may know its words.
 */
const FOLDERS: Readonly<Record<string, readonly string[]>> = {
  core: [],
  'config.ts': ['core'],
  sqlite: ['core'],
  storage: ['core', 'parent/protocol.ts'],
  templates: ['core'],
  slurm: ['core', 'parent/protocol.ts', 'storage/paths.ts'],
  runner: ['core', 'sqlite', 'storage', 'templates', 'parent/protocol.ts'],
  api: ['core', 'runner', 'storage', 'templates'],
  parent: ['core', 'config.ts', 'slurm', 'storage', 'appliance'],
  appliance: ['core', 'config.ts', 'slurm', 'storage'],
};

/** Each package has one door; zod is how every edge states its shapes, pino's type how everybody logs. */
const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  express: ['api'],
  helmet: ['api'],
  multer: ['api'],
  'content-disposition': ['api'],
  'better-sqlite3': ['sqlite'],
  tar: ['storage'],
  unzipper: ['storage'],
  execa: ['slurm', 'parent', 'appliance'],
  'shell-quote': ['slurm', 'appliance'],
  ajv: ['templates'],
  yaml: ['templates'],
  zod: ['api', 'config.ts', 'core', 'parent', 'runner', 'storage', 'templates', 'slurm', 'appliance'],
  pino: ['api', 'runner', 'parent', 'appliance', 'slurm', 'storage', 'templates'],
};

interface Import {
  readonly file: string;
  readonly folder: string;
  readonly specifier: string;
}

const imports: Import[] = sources
  .filter((file) => file !== 'main.ts' && file !== 'compose.ts')
  .flatMap((file) =>
    [...readFileSync(join(server, file), 'utf8').matchAll(/(?:\bfrom|^import|\bimport\() ?'([^'\n]+)'/gm)].map(
      (match) => ({
        file,
        folder: file.split('/')[0] ?? '',
        specifier: match[1] ?? '',
      }),
    ),
  );

test('every folder imports only from the folders that the table allows', () => {
  const wrong = imports.flatMap(({ file, folder, specifier }) => {
    if (!specifier.startsWith('.')) return [];
    const target = relative(server, join(server, dirname(file), specifier));
    const allowed = [folder, ...(FOLDERS[folder] ?? [])];
    return allowed.some((each) => target === each || target.startsWith(`${each}/`))
      ? []
      : [`${file} imports ${specifier}`];
  });
  assert.deepEqual(wrong, []);
});

test('every package has one door', () => {
  const wrong = imports.flatMap(({ file, folder, specifier }) => {
    if (specifier.startsWith('.') || specifier.startsWith('node:')) return [];
    const name = specifier.startsWith('@')
      ? specifier.split('/').slice(0, 2).join('/')
      : (specifier.split('/')[0] ?? '');
    return PACKAGES[name]?.includes(folder) ? [] : [`${file} imports ${specifier}`];
  });
  assert.deepEqual(wrong, []);
});

test('the core is pure: no node modules in it', () => {
  const wrong = imports.filter(
    ({ folder, specifier }) =>
      folder === 'core' && (specifier.startsWith('node:') || builtinModules.includes(specifier)),
  );
  assert.deepEqual(wrong, []);
});

test('only the table of settings reads the environment', () => {
  const readers = sources.filter((file) => /\bprocess\.env\b/.test(readFileSync(join(server, file), 'utf8')));
  const allowed = ['config.ts', 'appliance/prepare.ts', 'parent/main.ts'];
  assert.deepEqual(
    readers.filter((file) => !allowed.includes(file)),
    [],
  );
});
