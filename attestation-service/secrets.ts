import { SealpodError } from '@sealpod/protocol/errors';
import type { Storage } from '@sealpod/storage';

const namespace = 'attestation-secret';

/**
 * A secret that all replicas share: read from storage, or made and stored by whoever comes first.
 * @throws SealpodError STORAGE
 */
export async function sharedSecret(
  storage: Storage,
  name: string,
  make: () => Promise<Uint8Array>,
): Promise<Uint8Array> {
  const known = await storage.get(namespace, name);
  if (known !== undefined) return known.value;
  const made = await make();
  return storage
    .transaction(async (transaction) => {
      const first = await transaction.get(namespace, name);
      if (first !== undefined) return first.value;
      await transaction.put(namespace, name, made, { expectedVersion: 0 });
      return made;
    })
    .catch((cause: unknown) => {
      throw cause instanceof SealpodError
        ? cause
        : new SealpodError('STORAGE', `the secret ${name} could not be stored`, { cause });
    });
}
