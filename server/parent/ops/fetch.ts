import { closeSync, constants, fchownSync, fsyncSync, openSync, unlinkSync } from 'node:fs';
import { basename, isAbsolute, normalize, resolve } from 'node:path';
import { AppError } from '../../core/errors.ts';
import type { Handlers } from '../protocol.ts';
import type { DataContext } from './data-context.ts';
import { answerOf, ended, kill, nodeCommand, releaseUid, spawnSealed, takeUid } from './sealed-child.ts';
import { openStaging } from './staging-folder.ts';

/** A bucket's mount retries for minutes before it gives up; without a byte for so long, it is taken for dead. */
export const STALL_LIMIT_MS = 120_000;

/**
 * Copies a file below an allowed root into `staging/<id>/upload`. Root itself never touches the source: even asking for its real path can
 * hang on a dead mount. A child with a user number of its own does, so that only what anybody may read can be imported.
 */
export function fetchOperation(ctx: DataContext, stallLimitMs = STALL_LIMIT_MS): Handlers['fetch'] {
  return async (request, signal) => {
    const path = pathOf(ctx, request.source);
    checkMount(ctx, path);
    const folder = openStaging(ctx, request.stagingId);
    const uid = takeUid();
    let target: number | null = null;
    let kept = false;
    try {
      target = openSync(
        `${folder.at}/upload`,
        constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
        0o600,
      );
      fchownSync(target, ctx.apiUid, ctx.apiGid);
      const order = {
        do: 'copy' as const,
        path,
        roots: [...ctx.importRoots],
        maxBytes: request.maxBytes,
        minFreeBytes: ctx.minFreeBytes,
      };
      const answer = await copy(
        ctx,
        { uid, maxFileBytes: request.maxBytes, cwd: folder.at },
        order,
        target,
        signal,
        stallLimitMs,
      );
      if (answer.did === 'refused') throw new AppError(answer.code, answer.message);
      if (answer.did !== 'copied') throw new Error(`the copying child answered "${answer.did}"`);
      checkMount(ctx, path);
      fsyncSync(target);
      kept = true;
      return { name: basename(path), bytes: answer.bytes, sha256: answer.sha256 };
    } finally {
      if (target !== null) closeSync(target);
      if (!kept && target !== null) unlinkSync(`${folder.at}/upload`);
      folder.close();
      releaseUid(uid);
    }
  };
}

async function copy(
  ctx: DataContext,
  seal: { uid: number; maxFileBytes: number; cwd: string },
  order: Parameters<typeof nodeCommand>[1],
  target: number,
  signal: AbortSignal,
  stallLimitMs: number,
) {
  const child = spawnSealed(seal, nodeCommand(ctx, order, []), ['ignore', 'pipe', 'pipe', target]);
  let stalled = false;
  const stop = () => kill(child);
  const watch = setTimeout(() => {
    stalled = true;
    stop();
  }, stallLimitMs);
  signal.addEventListener('abort', stop, { once: true });
  try {
    const all = ended(child, 1024 * 1024, () => watch.refresh());
    // A child that hangs in the kernel cannot even be killed; it is left alone then, so that nobody waits for it.
    const gone = new Promise<never>((_, reject) => {
      const check = setInterval(() => {
        if (stalled || signal.aborted)
          reject(
            new AppError(
              'unavailable',
              'the source gave no data for too long: the bucket or the disk hangs, try again later',
            ),
          );
      }, 100);
      child.once('close', () => clearInterval(check));
      check.unref();
    });
    gone.catch(() => {});
    const end = await Promise.race([all, gone]);
    if (stalled || signal.aborted) await gone;
    if (end.code === 0)
      return answerOf('the copying child', { ...end, stdout: end.stdout.trim().split('\n').at(-1) ?? '' });
    if (/EIO|ENOTCONN|ESTALE|ETIMEDOUT/.test(end.stderr))
      throw new AppError('unavailable', 'the source cannot be read now: the bucket or the disk failed, try again');
    if (/ENOSPC|EDQUOT/.test(end.stderr)) throw new AppError('out_of_space', 'there is not enough space for the copy');
    return answerOf('the copying child', end);
  } finally {
    clearTimeout(watch);
    signal.removeEventListener('abort', stop);
    stop();
  }
}

/** Where the source would be, judged as text: links are the child's to find out. */
function pathOf(ctx: DataContext, source: string): string {
  const first = ctx.importRoots[0];
  if (first === undefined)
    throw new AppError('forbidden', 'nothing may be imported here: the bucket is off and JR_IMPORT_ROOTS is empty');
  if (source.includes('\0')) throw new AppError('invalid', 'src_path must not contain a NUL character');
  if (source.split('/').includes('..')) throw new AppError('forbidden', 'src_path must not contain ".."');
  const path = normalize(isAbsolute(source) ? source : resolve(first, source));
  if (!ctx.importRoots.some((root) => path.startsWith(root === '/' ? '/' : `${root.replace(/\/+$/, '')}/`))) {
    throw new AppError('forbidden', 'src_path is outside of the folders that may be imported from (JR_IMPORT_ROOTS)');
  }
  return path;
}

/** On the empty folder that a mount has left behind, everything looks like "no such file": better said before and after than guessed. */
function checkMount(ctx: DataContext, path: string): void {
  const problem = ctx.bucketProblem();
  if (problem !== null && ctx.bucketMount !== null && path.startsWith(`${ctx.bucketMount}/`)) {
    throw new AppError('unavailable', `the bucket cannot be read now: ${problem}`);
  }
}
