import type { ChildProcess } from 'node:child_process';
import { closeSync, unlinkSync } from 'node:fs';
import type { ArchiveKind } from '../../core/dataset.ts';
import { AppError } from '../../core/errors.ts';
import type { ChildAnswer } from '../../storage/unpack-order.ts';
import type { Handlers, RequestOf } from '../protocol.ts';
import type { DataContext } from './data-context.ts';
import {
  answerOf,
  confinedTo,
  type Ended,
  ended,
  kill,
  nodeCommand,
  releaseUid,
  type Seal,
  spawnSealed,
  takeUid,
} from './sealed-child.ts';
import {
  handOver,
  makeTree,
  type OpenFolder,
  openStaging,
  openUpload,
  realPath,
  removeBelow,
  syncFileSystem,
} from './staging-folder.ts';

/** Dictionaries larger than these are a way to fill memory, not to pack a dataset. */
const DECOMPRESSORS: Readonly<Partial<Record<ArchiveKind, readonly string[]>>> = {
  'tar.gz': ['/usr/bin/gzip', '-dc'],
  'tar.bz2': ['/usr/bin/bzip2', '-dc'],
  'tar.xz': ['/usr/bin/xz', '-dc', '--format=xz', '--threads=1', '--memlimit-decompress=256MiB'],
  'tar.lzma': ['/usr/bin/xz', '-dc', '--format=lzma', '--threads=1', '--memlimit-decompress=256MiB'],
  'tar.zst': ['/usr/bin/zstd', '-dc', '--memory=512MiB'],
};
/** Room for the links of an archive in the child's answer. */
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;
/** Nothing honest takes longer: a terabyte from a slow disk. */
const TIME_LIMIT_MS = 12 * 60 * 60 * 1000;

type UnpackRequest = RequestOf<'unpack'>;

export function unpackOperation(ctx: DataContext): Handlers['unpack'] {
  return async (request, signal) => {
    const folder = openStaging(ctx, request.stagingId);
    const uid = takeUid();
    let tree: OpenFolder | null = null;
    let kept = false;
    try {
      const upload = openUpload(ctx, folder);
      try {
        tree = makeTree(folder, uid);
        const seal = { uid, maxFileBytes: request.maxBytes, cwd: tree.at };
        const answer = await unpackInto(
          ctx,
          request,
          seal,
          realPath(tree),
          upload,
          AbortSignal.any([signal, AbortSignal.timeout(TIME_LIMIT_MS)]),
        );
        if (answer.did === 'nothing') return { archive: false, files: 0, bytes: 0 };
        if (answer.did !== 'unpacked') throw asError(answer);
        if (answer.links.length > 0) await makeLinks(ctx, seal, answer.links, signal);
        // The archive's own bytes are not kept: gone before the disk is waited for, they need not be written at all.
        unlinkSync(`${folder.at}/upload`);
        await syncFileSystem(tree);
        handOver(ctx, tree);
        kept = true;
        return { archive: true, files: answer.files, bytes: answer.bytes };
      } finally {
        closeSync(upload);
        tree?.close();
      }
    } finally {
      if (!kept && tree !== null) await removeBelow(folder, 'tree');
      folder.close();
      releaseUid(uid);
    }
  };
}

async function unpackInto(
  ctx: DataContext,
  request: UnpackRequest,
  seal: Seal,
  tree: string,
  upload: number,
  signal: AbortSignal,
): Promise<ChildAnswer> {
  const { kind, maxBytes, maxEntries, minFreeBytes } = request;
  const command = DECOMPRESSORS[kind];
  const order = { do: kind === 'zip' ? ('zip' as const) : ('tar' as const), maxBytes, maxEntries, minFreeBytes };
  const children: ChildProcess[] = [];
  const stop = () => children.forEach(kill);
  signal.addEventListener('abort', stop, { once: true });
  try {
    const unpacker = spawnSealed(seal, nodeCommand(ctx, order, confinedTo(ctx, tree)), [
      command === undefined ? upload : 'pipe',
      'pipe',
      'pipe',
    ]);
    children.push(unpacker);
    const unpacked = ended(unpacker, MAX_ANSWER_BYTES);
    let decompressed: Promise<Ended> | null = null;
    if (command !== undefined) {
      // Our end of the pipe becomes the decompressor's output: the bytes do not pass through us.
      const decompressor = spawnSealed(seal, command, [upload, unpacker.stdin, 'pipe']);
      unpacker.stdin?.destroy();
      children.push(decompressor);
      decompressed = ended(decompressor, 0);
    }
    const answer = await unpacked.then((end) => answerOrAbort(end, signal));
    // It is stopped only when the unpacker did not want to hear the end; else how it ended is part of the verdict.
    const early = answer.did === 'refused' && !/truncated/.test(answer.message);
    if (early || answer.did === 'nothing') setTimeout(stop, answer.did === 'nothing' ? 50 : 0).unref();
    return judge(kind, answer, decompressed === null ? null : await decompressed);
  } finally {
    signal.removeEventListener('abort', stop);
    stop();
  }
}

function answerOrAbort(end: Ended, signal: AbortSignal): ChildAnswer {
  if (signal.aborted) throw new AppError('unavailable', 'unpacking was stopped');
  if (end.signal === 'SIGKILL' || /heap out of memory/i.test(end.stderr)) {
    throw new AppError('archive_refused', 'unpacking the archive needs more memory than it may have');
  }
  return answerOf('the unpacker', end);
}

/** A decompressor that failed has seen broken data, and the tar that it left unfinished is only a consequence. */
function judge(kind: ArchiveKind, answer: ChildAnswer, decompressor: Ended | null): ChildAnswer {
  if (decompressor === null || decompressor.signal !== null) return answer;
  // bzip2 answers 0 for "trailing garbage after EOF ignored".
  const failed = decompressor.code !== 0 || (kind === 'tar.bz2' && decompressor.stderr !== '');
  if (!failed || (answer.did === 'nothing' && kind === 'tar.lzma')) return answer;
  if (answer.did === 'refused' && !/truncated/.test(answer.message)) return answer;
  const said = decompressor.stderr
    .split('\n')
    .map((line) =>
      line
        .replace(/^(gzip|bzip2|xz|zstd): */, '')
        .replace(/^\W*stdin\W*: */, '')
        .trim(),
    )
    .find((line) => line !== '');
  const format = kind.replace('tar.', '');
  return {
    did: 'refused',
    code: 'archive_refused',
    message: `the ${format} data is broken, truncated or followed by other data${said === undefined ? '' : `: ${said.slice(0, 200)}`}`,
  };
}

function asError(answer: ChildAnswer): Error {
  if (answer.did !== 'refused') return new Error(`the unpacker answered "${answer.did}"`);
  return new AppError(answer.code, answer.message);
}

async function makeLinks(
  ctx: DataContext,
  seal: Seal,
  links: readonly (readonly [string, string])[],
  signal: AbortSignal,
): Promise<void> {
  const child = spawnSealed(seal, nodeCommand(ctx, { do: 'links' }, []), ['pipe', 'pipe', 'pipe']);
  const stop = () => kill(child);
  signal.addEventListener('abort', stop, { once: true });
  try {
    const end = ended(child, 4096);
    child.stdin?.on('error', () => {});
    child.stdin?.end(JSON.stringify(links));
    const answer = answerOrAbort(await end, signal);
    if (answer.did !== 'linked') throw asError(answer);
  } finally {
    signal.removeEventListener('abort', stop);
    stop();
  }
}
