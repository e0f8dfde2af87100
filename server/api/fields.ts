import { z } from 'zod';

/**
 * Field types shared by the wire schemas. A form has only strings and JSON has real types: each of these takes both and says in its
 * message what is allowed.
 */
export function integerField(min: number, max: number) {
  const message = `must be a whole number from ${min} to ${max}`;
  return z
    .union(
      [
        z.number(),
        z
          .string()
          .regex(/^-?\d{1,15}$/, message)
          .transform(Number),
      ],
      message,
    )
    .pipe(z.number(message).int(message).min(min, message).max(max, message));
}

export function textField(max: number) {
  return z
    .string('must be text')
    .max(max, `must be at most ${max} characters`)
    .refine((text) => !text.includes('\0'), 'must not contain a NUL character');
}

/** A job id in a path or a form. */
export const jobIdField = integerField(1, Number.MAX_SAFE_INTEGER);

/** Milliseconds since the epoch as the API shows times: ISO 8601 in UTC. */
export function isoTime(milliseconds: number): string {
  return new Date(milliseconds).toISOString();
}
