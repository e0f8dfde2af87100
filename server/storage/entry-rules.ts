import { quoted, Refusal } from './refusal.ts';

/**
 * Which names an archive may give to what it holds. Pure: a name is bytes here, because what is no UTF-8 must be seen before it is
 * turned into text. One byte below NAME_MAX: "255+" in the contract's list of what is hostile.
 */
export const NAME_LIMITS = { componentBytes: 254, pathBytes: 2048, depth: 128, linkTargetBytes: 1024 } as const;

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The parts of an entry's path, without `.` and empty ones; `[]` is the archive's own top folder. Throws a Refusal. */
export function partsOf(raw: Buffer): readonly string[] {
  if (raw.length === 0) throw new Refusal('an entry has an empty name');
  if (raw.length > NAME_LIMITS.pathBytes) {
    throw new Refusal(`the path ${quoted(raw)} is longer than ${NAME_LIMITS.pathBytes} bytes`);
  }
  const text = textOf(raw, 'the name');
  if (text.startsWith('/')) throw new Refusal(`the path ${quoted(text)} is absolute; only relative paths are allowed`);
  const parts = text.split('/').filter((part) => part !== '' && part !== '.');
  if (parts.length > NAME_LIMITS.depth) {
    throw new Refusal(`the path ${quoted(text)} is deeper than ${NAME_LIMITS.depth} folders`);
  }
  for (const part of parts) {
    if (part === '..') throw new Refusal(`the path ${quoted(text)} contains ".."`);
    if (Buffer.byteLength(part) > NAME_LIMITS.componentBytes) {
      throw new Refusal(`a name in ${quoted(text)} is longer than ${NAME_LIMITS.componentBytes} bytes`);
    }
  }
  return parts;
}

/** A link's target as text. Whether it stays inside is seen when all links are known: `confine` below. Throws a Refusal. */
export function targetOf(raw: Buffer, name: string): string {
  if (raw.length === 0) throw new Refusal(`the link ${quoted(name)} points to nothing`);
  if (raw.length > NAME_LIMITS.linkTargetBytes) {
    throw new Refusal(`the link ${quoted(name)} has a target longer than ${NAME_LIMITS.linkTargetBytes} bytes`);
  }
  const text = textOf(raw, `the target of the link ${quoted(name)}:`);
  if (text.startsWith('/')) {
    throw new Refusal(
      `the link ${quoted(name)} points to the absolute path ${quoted(text)}; only paths inside the archive are allowed`,
    );
  }
  return text;
}

function textOf(raw: Buffer, what: string): string {
  if (raw.includes(0)) throw new Refusal(`${what} ${quoted(raw)} contains a NUL byte`);
  try {
    return utf8.decode(raw);
  } catch {
    throw new Refusal(`${what} ${quoted(raw)} is not UTF-8`);
  }
}

/** Most symbolic links that the kernel follows in one path (MAXSYMLINKS). */
const MAX_HOPS = 40;
/** Bound for all links of an archive together, so that links upon links cannot buy hours of work. */
const MAX_STEPS = 10_000_000;

/**
 * Refuses links that leave the tree. Every link is walked as the kernel would walk it, through the other links, because `..` after a
 * link means the parent of where that link leads: `a -> .`, `b -> a/..` looks harmless as text and is not.
 *
 * @param links target by path, both relative to the tree's top
 */
export function confine(links: ReadonlyMap<string, string>): void {
  let steps = 0;
  for (const [path, target] of links) {
    const at = path.split('/').slice(0, -1);
    const todo = target.split('/').reverse();
    for (let hops = 1; todo.length > 0; ) {
      if (++steps > MAX_STEPS) throw new Refusal('the symbolic links of the archive are too entangled');
      const part = todo.pop() ?? '';
      if (part === '' || part === '.') continue;
      if (part === '..') {
        if (at.pop() === undefined) {
          throw new Refusal(`the symbolic link ${quoted(path)} points to ${quoted(target)}, outside of the archive`);
        }
        continue;
      }
      at.push(part);
      const next = links.get(at.join('/'));
      if (next === undefined) continue;
      if (++hops > MAX_HOPS) throw new Refusal(`the symbolic link ${quoted(path)} leads in a circle`);
      at.pop();
      todo.push(...next.split('/').reverse());
    }
  }
}
