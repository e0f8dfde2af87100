import { z } from 'zod';
import { ERROR_CODES } from '../core/errors.ts';

/** What the root parent and the child without rights say to each other: the order as the child's only argument, the answer as one line. */
const limits = { maxBytes: z.int(), maxEntries: z.int(), minFreeBytes: z.int() };
export const childOrder = z.discriminatedUnion('do', [
  z.object({ do: z.literal('tar'), ...limits }),
  z.object({ do: z.literal('zip'), ...limits }),
  z.object({ do: z.literal('links') }),
  z.object({
    do: z.literal('copy'),
    path: z.string(),
    roots: z.array(z.string()),
    maxBytes: z.int(),
    minFreeBytes: z.int(),
  }),
]);
export type ChildOrder = z.output<typeof childOrder>;

/** The child handled hostile bytes, so its answer is checked like a stranger's. */
export const childAnswer = z.discriminatedUnion('did', [
  z.object({
    did: z.literal('unpacked'),
    files: z.int().nonnegative(),
    bytes: z.int().nonnegative(),
    links: z.array(z.tuple([z.string(), z.string()]).readonly()).readonly(),
  }),
  /** The stream is no tar. */
  z.object({ did: z.literal('nothing') }),
  z.object({ did: z.literal('linked') }),
  z.object({ did: z.literal('copied'), bytes: z.int().nonnegative(), sha256: z.string().regex(/^[0-9a-f]{64}$/) }),
  z.object({ did: z.literal('refused'), code: z.enum(ERROR_CODES), message: z.string().max(2000) }),
]);
export type ChildAnswer = z.input<typeof childAnswer>;
