import type { Handlers } from '../protocol.ts';
import type { DataContext } from './data-context.ts';
import { moveToStaging, openFolder, removeBelow } from './staging-folder.ts';

/** Removes a staging folder or a dataset, whoever owns what is in it. Fine when it is not there. */
export function removeOperation(ctx: DataContext): Handlers['remove'] {
  return async (request) => {
    const name = request.area === 'staging' ? request.name : moveToStaging(ctx, request.name);
    if (name === null) return {};
    const staging = openFolder(ctx.paths.staging);
    try {
      await removeBelow(staging, name);
    } finally {
      staging.close();
    }
    return {};
  };
}
