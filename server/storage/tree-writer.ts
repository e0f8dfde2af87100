import { closeSync, linkSync, lstatSync, mkdirSync, openSync, statfsSync, writeSync } from 'node:fs';
import { confine, targetOf } from './entry-rules.ts';
import { quoted, Refusal } from './refusal.ts';

export interface TreeLimits {
  /** Largest sum of the files' sizes. */
  readonly maxBytes: number;
  readonly maxEntries: number;
  /** Space that must stay free on the file system. */
  readonly minFreeBytes: number;
}

export interface Tree {
  readonly files: number;
  readonly bytes: number;
  /** Symbolic links, path and target: made by a second child when everything else is in place. */
  readonly links: readonly (readonly [string, string])[];
}

const MAX_LINKS = 100_000;
const MAX_LINK_TEXT = 16 * 1024 * 1024;
const CHECK_SPACE_EVERY = { bytes: 64 * 1024 * 1024, entries: 5_000 };

/**
 * Writes an archive's entries below the current folder. While it works, that folder holds nothing but folders and files that it made
 * itself: symbolic links come last, so that nothing can be written through one. Synchronous on purpose: this runs in a process of its
 * own, where a promise for each of a million small files would only cost time.
 */
export class TreeWriter {
  readonly #limits: TreeLimits;
  readonly #folders = new Set<string>();
  readonly #links = new Map<string, string>();
  #linkText = 0;
  #entries = 0;
  #files = 0;
  #bytes = 0;
  #bytesUntilCheck = 0;
  #entriesUntilCheck = 0;
  #open: { readonly fd: number; readonly name: string } | null = null;

  constructor(limits: TreeLimits) {
    this.#limits = limits;
  }

  /** Counts one entry, whatever it is. */
  count(): void {
    this.#entries += 1;
    if (this.#entries > this.#limits.maxEntries) {
      throw new Refusal(
        `the archive has more than ${this.#limits.maxEntries} entries, which is the most that is allowed`,
      );
    }
    this.#entriesUntilCheck -= 1;
    if (this.#entriesUntilCheck < 0) this.#checkSpace(0);
  }

  /** Starts a file of `size` bytes; `write` and `close` follow. Only the right to execute is kept of `mode`. */
  open(parts: readonly string[], mode: number, size: number): void {
    const name = parts.join('/');
    if (name === '') throw new Refusal('an entry has no name but is a file');
    if ((mode & 0o6000) !== 0) throw new Refusal(`the file ${quoted(name)} has a set-uid or set-gid bit`);
    if (this.#bytes + size > this.#limits.maxBytes) throw this.#tooManyBytes();
    if (size >= this.#bytesUntilCheck) this.#checkSpace(size);
    this.#parent(parts);
    this.#refuseTwice(name);
    const fd = this.#make(name, () => openSync(name, 'wx', (mode & 0o111) === 0 ? 0o644 : 0o755));
    this.#open = { fd, name };
    this.#files += 1;
  }

  write(chunk: Buffer): void {
    const { fd, name } = this.#opened();
    this.#bytes += chunk.length;
    if (this.#bytes > this.#limits.maxBytes) throw this.#tooManyBytes();
    this.#bytesUntilCheck -= chunk.length;
    if (this.#bytesUntilCheck < 0) this.#checkSpace(0);
    this.#make(name, () => {
      for (let done = 0; done < chunk.length; ) done += writeSync(fd, chunk, done, chunk.length - done);
    });
  }

  close(): void {
    const { fd, name } = this.#opened();
    this.#open = null;
    this.#make(name, () => closeSync(fd));
  }

  folder(parts: readonly string[]): void {
    this.#parent([...parts, '']);
  }

  symbolicLink(parts: readonly string[], rawTarget: Buffer): void {
    const name = parts.join('/');
    if (name === '') throw new Refusal('an entry has no name but is a link');
    const target = targetOf(rawTarget, name);
    this.#parent(parts);
    this.#refuseTwice(name);
    if (lstatSync(name, { throwIfNoEntry: false }) !== undefined) throw twice(name);
    this.#linkText += name.length + target.length;
    if (this.#links.size >= MAX_LINKS || this.#linkText > MAX_LINK_TEXT) {
      throw new Refusal(`the archive has more than ${MAX_LINKS} symbolic links, or very long ones`);
    }
    this.#links.set(name, target);
  }

  /** A hard link to a file that stands earlier in the archive. It stays one: the two share their bytes, as they did when they were packed. */
  hardLink(parts: readonly string[], targetParts: readonly string[]): void {
    const name = parts.join('/');
    const target = targetParts.join('/');
    const known = target !== '' && !this.#links.has(target) && lstatSync(target, { throwIfNoEntry: false })?.isFile();
    if (name === '' || known !== true) {
      throw new Refusal(
        `the hard link ${quoted(name)} points to ${quoted(target)}, which is no file that stands before it in the archive`,
      );
    }
    this.#parent(parts);
    this.#refuseTwice(name);
    this.#make(name, () => linkSync(target, name));
    this.#files += 1;
  }

  /** Checks what only the whole shows. Throws a Refusal for links that leave the tree and for an archive of nothing. */
  finish(): Tree {
    if (this.#files + this.#links.size + this.#folders.size === 0) throw new Refusal('the archive is empty');
    confine(this.#links);
    return { files: this.#files, bytes: this.#bytes, links: [...this.#links] };
  }

  #parent(parts: readonly string[]): void {
    const folder = parts.slice(0, -1).join('/');
    if (folder === '' || this.#folders.has(folder)) return;
    this.#parent(parts.slice(0, -1));
    if (this.#links.has(folder))
      throw new Refusal(`an entry would be written through the symbolic link ${quoted(folder)}`);
    this.#make(folder, () => mkdirSync(folder, 0o755));
    this.#folders.add(folder);
    this.#entriesUntilCheck -= 1;
  }

  #refuseTwice(name: string): void {
    if (this.#folders.has(name) || this.#links.has(name)) throw twice(name);
  }

  #make<T>(name: string, act: () => T): T {
    try {
      return act();
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === 'EEXIST' || code === 'ENOTDIR' || code === 'EISDIR') throw twice(name);
      if (code === 'ENAMETOOLONG')
        throw new Refusal(`the path ${quoted(name)} is too long for this machine's file system`);
      if (code === 'EILSEQ' || code === 'EINVAL')
        throw new Refusal(`this machine's file system does not take the name ${quoted(name)}`);
      if (code === 'EMLINK') throw new Refusal(`too many hard links to the file behind ${quoted(name)}`);
      if (code === 'ENOSPC' || code === 'EDQUOT')
        throw new Refusal('there is not enough space to unpack the archive', 'out_of_space');
      if (code === 'EFBIG') throw this.#tooManyBytes();
      throw error;
    }
  }

  #opened(): { readonly fd: number; readonly name: string } {
    if (this.#open === null) throw new Error('no file is open');
    return this.#open;
  }

  #tooManyBytes(): Refusal {
    return new Refusal(
      `the archive would unpack to more than ${this.#limits.maxBytes} bytes, which is the most that is allowed for it`,
    );
  }

  #checkSpace(coming: number): void {
    this.#bytesUntilCheck = CHECK_SPACE_EVERY.bytes;
    this.#entriesUntilCheck = CHECK_SPACE_EVERY.entries;
    const { bavail, bsize } = statfsSync('.');
    if (bavail * bsize - coming < this.#limits.minFreeBytes) {
      throw new Refusal(
        `unpacking would leave less than ${this.#limits.minFreeBytes} bytes free, which must stay free on this machine`,
        'out_of_space',
      );
    }
  }
}

function twice(name: string): Refusal {
  return new Refusal(`the archive holds ${quoted(name)} twice, or as a file and a folder`);
}
