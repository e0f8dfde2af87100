import type { JobId } from './job.ts';

/** One indexed file of a job. `path` is relative to the job's result folder, with `/` between its parts. */
export interface Output {
  readonly experimentId: string;
  readonly outputId: string;
  readonly jobId: JobId;
  readonly path: string;
  readonly bytes: number;
  readonly weights: boolean;
  readonly createdAt: number;
}

export interface OutputPage {
  readonly outputs: readonly Output[];
  /** The `after` of the next page; null at the end. */
  readonly next: string | null;
}

/** A file as it was found in a result folder. */
export interface FoundFile {
  readonly path: string;
  readonly bytes: number;
}

/** Something in a result folder that is not an output, and why. `path` is as the job wrote it, shortened. */
export interface Skipped {
  readonly path: string;
  readonly reason: string;
}

export const PATH_LIMITS = { bytes: 4000, partBytes: 255, depth: 64 } as const;

/**
 * A path inside a result folder in its one form: relative, without `.`, `..` and empty parts. `./a//b` becomes `a/b`; whatever could
 * lead outside is a fault and never mended.
 */
export function parseRelPath(text: string): { readonly path: string } | { readonly fault: string } {
  if (text === '') return { fault: 'must not be empty' };
  if (text.includes('\0')) return { fault: 'must not contain a NUL character' };
  if (/\p{Surrogate}/u.test(text)) return { fault: 'must be valid Unicode' };
  if (text.startsWith('/')) return { fault: "must be relative to the job's result folder" };
  const parts = text.split('/').filter((part) => part !== '' && part !== '.');
  if (parts.includes('..')) return { fault: 'must not contain ".."' };
  if (parts.length === 0) return { fault: 'must name a file' };
  if (parts.length > PATH_LIMITS.depth) return { fault: `must have at most ${PATH_LIMITS.depth} parts` };
  if (parts.some((part) => utf8Bytes(part) > PATH_LIMITS.partBytes)) {
    return { fault: `must have parts of at most ${PATH_LIMITS.partBytes} bytes` };
  }
  const path = parts.join('/');
  return utf8Bytes(path) > PATH_LIMITS.bytes ? { fault: `must be at most ${PATH_LIMITS.bytes} bytes` } : { path };
}

function utf8Bytes(text: string): number {
  return new TextEncoder().encode(text).length;
}

const ID_LENGTH = 512;

/** Why a text cannot be an experiment's or an output's id; null when it can. */
export function faultOfId(text: string): string | null {
  if (text === '' || text.length > ID_LENGTH) return `must have 1 to ${ID_LENGTH} characters`;
  if (/\p{Cc}|\p{Surrogate}/u.test(text)) return 'must not contain control characters';
  return null;
}

const WEIGHTS = /\.(pt|pth|bin|ckpt|safetensors|onnx)$/i;

export function isWeights(path: string): boolean {
  return WEIGHTS.test(path);
}

/**
 * An id for every file of a job without a manifest: the name without its extension. Where several files would have the same one, the
 * first keeps it (weights before others, then the shallower, then by path) and the others are called by their name, else by their
 * path. An id that a file already has stays with it as long as the file is there, so that a link that someone noted never comes to
 * mean another file when the job writes more. The order of `files` does not matter.
 */
export function assignIds(
  files: readonly FoundFile[],
  previous: ReadonlyMap<string, string>,
): ReadonlyMap<string, string> {
  const steps = assigning(files, previous);
  for (let step = steps.next(); ; step = steps.next()) if (step.done) return step.value;
}

/** The same in short steps, for folders so large that others must get their turn in between. */
export function* assigning(
  files: readonly FoundFile[],
  previous: ReadonlyMap<string, string>,
): Generator<undefined, ReadonlyMap<string, string>> {
  const idOf = new Map<string, string>();
  const taken = new Set<string>();
  const give = (path: string, id: string) => {
    idOf.set(path, id);
    taken.add(id);
  };
  const paths = inOrder(files);
  for (const [index, path] of previous.size === 0 ? [] : paths.entries()) {
    if (index % STEP === 0) yield;
    const id = previous.get(path);
    if (id !== undefined && !taken.has(id) && isCandidate(path, id)) give(path, id);
  }
  for (const [index, path] of paths.entries()) {
    if (index % STEP === 0) yield;
    if (idOf.has(path)) continue;
    const name = nameOf(path);
    const id = [stemOf(name), name, path].find((candidate) => !taken.has(candidate));
    // The last resort belongs to this path alone: no other path yields a text that begins with "./".
    give(path, id ?? `./${path}`);
  }
  return idOf;
}

const STEP = 2000;

function isCandidate(path: string, id: string): boolean {
  const name = nameOf(path);
  return id === stemOf(name) || id === name || id === path || id === `./${path}`;
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

function stemOf(name: string): string {
  const dot = name.lastIndexOf('.');
  return dot > 0 ? name.slice(0, dot) : name;
}

/** Weights before others, then the shallower, then by path. As texts that sort so by themselves: there may be a hundred thousand. */
function inOrder(files: readonly FoundFile[]): readonly string[] {
  return files
    .map(({ path }) => {
      let depth = 100;
      for (let at = path.indexOf('/'); at !== -1; at = path.indexOf('/', at + 1)) depth += 1;
      return `${isWeights(path) ? 0 : 1}${depth}${path}`;
    })
    .sort()
    .map((text) => text.slice(4));
}

/** The experiment of a job that wrote none into its manifest: the parameter `experimentId`, else `job-<id>`. */
export function experimentOf(job: { readonly id: JobId; readonly experimentId: string | null }): string {
  const { experimentId } = job;
  return experimentId !== null && faultOfId(experimentId) === null ? experimentId : `job-${job.id}`;
}
