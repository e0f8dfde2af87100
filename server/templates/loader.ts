import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { AppError } from '../core/errors.ts';
import type { Template, TemplateLibrary } from '../core/template.ts';
import { readDeclaration } from './declaration.ts';

export interface TemplateFolders {
  /** Ours, part of the program. */
  readonly builtin: string;
  /** JR_ROOT/templates: a user's own. May be missing. */
  readonly own: string;
}

const KEY = /^[a-z0-9_-]{1,64}$/;
const DECLARATION_BYTES = 262_144;
const ENTRIES = { 'run.sh': 'bash', 'run.py': 'python3' } as const;

/**
 * Templates are read from their folders when they are asked for and again when something in a folder changed, which three `lstat`
 * tell (some microseconds): a dropped folder works at once. A template is refused alone: a broken one leaves the others as they are.
 * A user's template cannot take the name of a built-in one, because what `pytorch_example` means is promised to every client.
 */
export function createTemplateLibrary(folders: TemplateFolders): TemplateLibrary {
  const cache = new Map<string, Cached>();
  const builtin = new Set(keysIn(folders.builtin));

  const load = (key: string): Cached | null => {
    const folder = join(builtin.has(key) ? folders.builtin : folders.own, key);
    const seen = fingerprint(folder);
    if (seen === null) {
      cache.delete(key);
      return null;
    }
    const known = cache.get(key);
    if (known !== undefined && known.mark === seen.mark) return known;
    const loaded = { mark: seen.mark, ...readTemplate(key, folder) };
    // Changed a moment ago: it may change again within the same tick of the file system's clock. Look again next time.
    cache.set(key, seen.settled ? loaded : { ...loaded, mark: '' });
    return loaded;
  };
  const own = () => keysIn(folders.own).filter((key) => !builtin.has(key));

  return {
    get(key) {
      const loaded = KEY.test(key) ? load(key) : null;
      if (loaded === null) return null;
      if (loaded.template !== null) return loaded.template;
      throw new AppError('conflict', `the template "${key}" cannot be used: ${loaded.fault}`, {
        fields: [{ field: 'command_key', message: `this template cannot be used: ${loaded.fault}` }],
      });
    },
    list() {
      return [...builtin, ...own()].sort().flatMap((key) => (KEY.test(key) ? (load(key)?.template ?? []) : []));
    },
    broken() {
      const shadowing = keysIn(folders.own).filter((key) => builtin.has(key));
      return [
        ...[...builtin, ...own()].sort().flatMap((key) => {
          if (!KEY.test(key)) return { key, fault: 'its name must be 1 to 64 of a-z, 0-9, "_" and "-"' };
          const loaded = load(key);
          return loaded === null || loaded.template !== null ? [] : { key, fault: loaded.fault };
        }),
        ...shadowing.map((key) => ({
          key,
          fault: 'the name belongs to a built-in template, which is used: give this one another name',
        })),
      ];
    },
    builtinKeys: builtin,
  };
}

type Loaded = { readonly template: Template } | { readonly template: null; readonly fault: string };
type Cached = Loaded & { readonly mark: string };

/** Names of what may be a template: all but hidden entries and plain files. */
function keysIn(folder: string): string[] {
  try {
    return readdirSync(folder, { withFileTypes: true })
      .filter((entry) => !entry.name.startsWith('.') && (entry.isDirectory() || entry.isSymbolicLink()))
      .map((entry) => entry.name);
  } catch {
    return [];
  }
}

const SETTLED_NANOSECONDS = 50_000_000n;

/** Changes whenever something that counts in the folder changes; null when there is no folder. */
function fingerprint(folder: string): { readonly mark: string; readonly settled: boolean } | null {
  const top = statOf(folder);
  if (top === null) return null;
  const stats = [top, ...['template.yaml', ...Object.keys(ENTRIES)].map((name) => statOf(join(folder, name)))];
  const newest = stats.reduce((latest, stat) => (stat !== null && stat.ctimeNs > latest ? stat.ctimeNs : latest), 0n);
  return {
    mark: stats
      .map((stat) => (stat === null ? '-' : `${stat.ino}:${stat.size}:${stat.mode}:${stat.ctimeNs}`))
      .join(' '),
    settled: BigInt(Date.now()) * 1_000_000n - newest > SETTLED_NANOSECONDS,
  };
}

function statOf(path: string): BigIntStats | null {
  try {
    return lstatSync(path, { bigint: true });
  } catch {
    return null;
  }
}

function readTemplate(key: string, folder: string): Loaded {
  try {
    const stat = lstatSync(folder);
    if (!stat.isDirectory()) throw new Error('it must be a folder, and not a link to one');
    if ((stat.mode & 0o005) !== 0o005) throw new Error('jobs cannot enter its folder: chmod o+rx it');
    const declared = readDeclaration(readText(join(folder, 'template.yaml')));
    return { template: { key, ...declared, entry: entryOf(folder) } };
  } catch (error) {
    return { template: null, fault: (error as Error).message };
  }
}

function readText(path: string): string {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') throw new Error('it has no template.yaml');
    throw new Error(code === 'ELOOP' ? 'template.yaml must not be a link' : `template.yaml cannot be read (${code})`);
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new Error('template.yaml must be a regular file');
    if (stat.size > DECLARATION_BYTES) throw new Error(`template.yaml must be at most ${DECLARATION_BYTES} bytes`);
    return readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
}

function entryOf(folder: string): Template['entry'] {
  const there = (['run.sh', 'run.py'] as const).filter((name) => statOf(join(folder, name)) !== null);
  const [name] = there;
  if (name === undefined) throw new Error('it has no run.sh and no run.py');
  if (there.length > 1) throw new Error('it has both run.sh and run.py: leave one of them');
  const file = join(folder, name);
  const stat = lstatSync(file);
  if (!stat.isFile()) throw new Error(`${name} must be a regular file in the folder, and not a link`);
  if ((stat.mode & 0o004) === 0) throw new Error(`jobs cannot read ${name}: chmod o+r it`);
  return { file, interpreter: ENTRIES[name] };
}
