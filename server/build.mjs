// Bundles the programs into dist/: each one file and no node_modules, so that they start fast, can be copied to where the service
// users may read them, and make a small image. Two things are not JavaScript and travel beside them: SQLite's addon, and data.
import { cp, mkdir, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const out = join(root, 'dist');
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
  // unzipper can read from S3 where that package is installed; we never do.
  external: ['@aws-sdk/client-s3'],
  sourcemap: 'linked',
  legalComments: 'none',
  logLevel: 'warning',
});
const addon = join(dirname(require.resolve('better-sqlite3/package.json')), 'build/Release/better_sqlite3.node');
await cp(addon, join(out, 'better_sqlite3.node'));
await cp(join(root, 'server/templates/builtin'), join(out, 'templates'), { recursive: true });
await cp(join(root, 'slurm-conf'), join(out, 'slurm-conf'), { recursive: true });
await cp(join(root, 'package.json'), join(out, 'package.json'));
