import { fstatSync, readFileSync, symlinkSync, writeSync } from 'node:fs';
import { BlockReader } from './block-reader.ts';
import { copyFrom } from './copy-source.ts';
import { Refusal } from './refusal.ts';
import { TreeWriter } from './tree-writer.ts';
import type { ChildAnswer, ChildOrder } from './unpack-order.ts';
import { unpackTar } from './unpack-tar.ts';
import { unpackZip } from './unpack-zip.ts';

/**
 * The program that touches hostile bytes. The root parent starts it as a user of its own that owns nothing but the current folder,
 * without privileges, environment or any open file but its input and the line it answers on standard output.
 */
async function main(): Promise<ChildAnswer> {
  process.umask(0o022);
  const order = JSON.parse(process.argv[2] ?? '') as ChildOrder;
  switch (order.do) {
    case 'links': {
      // A second run, when the tree stands: Node's permission model, which the first run had, allows no relative links.
      const links = JSON.parse(readFileSync(0, 'utf8')) as [string, string][];
      for (const [path, target] of links) symlinkSync(target, path);
      return { did: 'linked' };
    }
    case 'copy':
      return copyFrom(order);
    default: {
      const tree = new TreeWriter(order);
      if (order.do === 'zip') {
        await unpackZip(0, fstatSync(0).size, order.maxEntries, tree);
      } else if (!unpackTar(new BlockReader(0), tree)) return { did: 'nothing' };
      return { did: 'unpacked', ...tree.finish() };
    }
  }
}

function answer(line: ChildAnswer): void {
  const bytes = Buffer.from(`${JSON.stringify(line)}\n`);
  for (let done = 0; done < bytes.length; ) done += writeSync(1, bytes, done);
}

main().then(answer, (error: unknown) => {
  if (!(error instanceof Refusal)) throw error;
  answer({ did: 'refused', code: error.code, message: error.message });
});
