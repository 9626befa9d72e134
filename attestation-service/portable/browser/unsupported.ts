import { SealpodError } from '@sealpod/protocol/errors';

/** What verification needs nothing of: throws UNSUPPORTED with its name where it is called all the same. */
export function unsupported(name: string): () => never {
  return () => {
    throw new SealpodError('UNSUPPORTED', `${name} is not there outside Node`, {
      fix: 'call it on Node; the portable entry point verifies only',
    });
  };
}
