import { AppError } from '../../core/errors.ts';
import type { Handlers } from '../protocol.ts';
import { askNode } from './node.ts';

/** What every operation may know: paths, users, programs. Nothing of it comes from a request. */
export type { ApplianceFacts as OperationContext } from '../../appliance/facts.ts';

import type { ApplianceFacts } from '../../appliance/facts.ts';

/** All that the API may ask for, each in a file of its own. */
export function createHandlers(facts: ApplianceFacts): Handlers {
  const missing = async (): Promise<never> => {
    throw new AppError('unavailable', 'this operation is not there yet');
  };
  return {
    submit: missing,
    cancel: missing,
    observe: missing,
    node: askNode(facts),
    release: missing,
    unpack: missing,
    fetch: missing,
    remove: missing,
  };
}
