import type { ErrorCode } from '../core/errors.ts';
import type { TreeLimits } from './tree-writer.ts';

/**
 * What the root parent and the child without rights say to each other: the order as the child's only argument, the answer as one line.
 * Types alone, so that the child starts fast; the parent, who must not believe it, checks the answer (`parent/ops/sealed-child`).
 */
export type ChildOrder =
  | ({ readonly do: 'tar' | 'zip' } & TreeLimits)
  | { readonly do: 'links' }
  | {
      readonly do: 'copy';
      readonly path: string;
      readonly roots: readonly string[];
      readonly maxBytes: number;
      readonly minFreeBytes: number;
    };

export type ChildAnswer =
  | {
      readonly did: 'unpacked';
      readonly files: number;
      readonly bytes: number;
      readonly links: readonly (readonly [string, string])[];
    }
  /** The stream is no tar. */
  | { readonly did: 'nothing' }
  | { readonly did: 'linked' }
  | { readonly did: 'copied'; readonly bytes: number; readonly sha256: string }
  | { readonly did: 'refused'; readonly code: ErrorCode; readonly message: string };
