/** Why an archive is not unpacked. The message is a sentence that may be shown; it names the entry and what is allowed. */
export class Refusal extends Error {
  readonly code: 'archive_refused' | 'out_of_space';

  constructor(message: string, code: 'archive_refused' | 'out_of_space' = 'archive_refused') {
    super(message);
    this.name = 'Refusal';
    this.code = code;
  }
}

/** A name from an archive as it may stand in a message: quoted, on one line, and not longer than a message should be. */
export function quoted(name: Buffer | string): string {
  const text = typeof name === 'string' ? name : name.toString('utf8');
  return JSON.stringify(text.length > 120 ? `${text.slice(0, 117)}...` : text);
}
