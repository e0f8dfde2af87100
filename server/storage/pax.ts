import { Refusal } from './refusal.ts';

/** Of a pax extended header, what changes how an entry is unpacked. Times, owners, attributes and comments do not. */
export interface PaxRecords {
  readonly path?: Buffer;
  readonly linkpath?: Buffer;
  readonly size?: number;
}

const MAX_RECORDS = 10_000;

/**
 * Records `<length> <key>=<value>\n`, the length in decimal and counting itself (POSIX.1-2001 pax). Values may hold any byte, so the
 * lengths are followed and nothing is searched for. Throws a Refusal for anything else: a record that one reader skips and another
 * understands gives one archive two meanings.
 */
export function parsePax(content: Buffer): PaxRecords {
  const found: { path?: Buffer; linkpath?: Buffer; size?: number } = {};
  let records = 0;
  for (let at = 0; at < content.length; ) {
    const space = content.indexOf(0x20, at);
    const digits = space === -1 ? '' : content.toString('latin1', at, Math.min(space, at + 10));
    const end = at + Number(digits);
    if (!/^[1-9]\d{0,7}$/.test(digits) || space + 1 >= end || end > content.length || content[end - 1] !== 0x0a) {
      throw new Refusal('the archive is damaged: an extended header has a record of a wrong length');
    }
    const equals = content.indexOf(0x3d, space);
    if (equals === -1 || equals >= end)
      throw new Refusal('the archive is damaged: an extended header has a record without "="');
    const key = content.toString('latin1', space + 1, equals);
    const value = content.subarray(equals + 1, end - 1);
    if (key.startsWith('GNU.sparse.')) throw new Refusal('the archive stores a file sparse; pack it without --sparse');
    if (key === 'path' || key === 'linkpath') {
      if (found[key] !== undefined) throw new Refusal(`an extended header sets "${key}" twice`);
      found[key] = value;
    }
    if (key === 'size') {
      const text = value.toString('latin1');
      if (!/^\d{1,15}$/.test(text) || found.size !== undefined)
        throw new Refusal('an extended header has no valid size');
      found.size = Number(text);
    }
    records += 1;
    if (records > MAX_RECORDS) throw new Refusal(`an extended header has more than ${MAX_RECORDS} records`);
    at = end;
  }
  return found;
}
