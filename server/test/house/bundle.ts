import { chmodSync, copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { build } from 'esbuild';

const server = join(import.meta.dirname, '../..');
const require = createRequire(import.meta.url);
let made: Promise<string> | null = null;

/**
 * The programs under test, bundled where every user may read them: `unpack.mjs`, and a small parent and API that hold only what
 * datasets need. Made once for a test process and removed when it exits.
 */
export function bundles(): Promise<string> {
  made ??= make();
  return made;
}

async function make(): Promise<string> {
  const out = mkdtempSync(join(tmpdir(), 'jr-test-programs-'));
  chmodSync(out, 0o755);
  process.once('exit', () => rmSync(out, { recursive: true, force: true }));
  await build({
    entryPoints: {
      unpack: join(server, 'storage/unpack-main.ts'),
      'data-parent': join(server, 'test/house/data-parent-main.ts'),
      'data-api': join(server, 'test/house/data-api-main.ts'),
    },
    outdir: out,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'esm',
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
    },
    logLevel: 'error',
  });
  copyFileSync(
    join(dirname(require.resolve('better-sqlite3/package.json')), 'build/Release/better_sqlite3.node'),
    join(out, 'better_sqlite3.node'),
  );
  return out;
}
