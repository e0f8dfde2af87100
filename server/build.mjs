// Bundles the programs into dist/: each one file and no node_modules, so that they start fast, can be copied to where the service
// users may read them, and make a small image. Two things are not JavaScript and travel beside them: SQLite's addon, and data.
import { existsSync } from 'node:fs';
import { cp, mkdir, rename, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
// Built aside and put in place at the end: an appliance that runs from dist/ never finds half of it.
const place = join(root, 'dist');
const out = join(root, `dist.new-${process.pid}`);
const require = createRequire(import.meta.url);

await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });
await build({
  entryPoints: {
    api: join(root, 'server/main.ts'),
    parent: join(root, 'server/parent/main.ts'),
    prepare: join(root, 'server/appliance/prepare.ts'),
    stop: join(root, 'server/appliance/stop.ts'),
    unpack: join(root, 'server/storage/unpack-main.ts'),
  },
  outdir: out,
  outExtension: { '.js': '.mjs' },
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  // CommonJS packages inside an ES module bundle still call require() for node's own modules.
  banner: {
    js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
  },
  sourcemap: 'linked',
  legalComments: 'none',
  logLevel: 'warning',
});
const addon = join(dirname(require.resolve('better-sqlite3/package.json')), 'build/Release/better_sqlite3.node');
await cp(addon, join(out, 'better_sqlite3.node'));
const templates = join(root, 'server/templates/builtin');
if (existsSync(templates)) await cp(templates, join(out, 'templates'), { recursive: true });
await cp(join(root, 'slurm-conf'), join(out, 'slurm-conf'), { recursive: true });
await cp(join(root, 'package.json'), join(out, 'package.json'));
const old = join(root, `dist.old-${process.pid}`);
if (existsSync(place)) await rename(place, old);
await rename(out, place);
await rm(old, { recursive: true, force: true });
