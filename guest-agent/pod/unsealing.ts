import { SealpodError } from '@sealpod/protocol/errors';

/** What a sealed secret begins with (guest-components, sealed secrets). */
const sealedPrefix = 'sealed.';

/** The data hub, as far as containers need it. */
export interface SecretUnsealer {
  /** Opens a sealed secret; rejects where it is not genuine or the key broker refuses. */
  unseal(secret: string): Promise<string>;
}

/** Whether an environment variable (`name=value`) holds a sealed secret. */
export function isSealed(variable: string): boolean {
  const at = variable.indexOf('=') + 1;
  return at > 0 && variable.startsWith(sealedPrefix, at);
}

/**
 * Replaces sealed values of environment variables by what they seal. A value that cannot be opened fails the container:
 * upstream leaves the sealed text in place, which a program would take for its secret.
 */
export async function unsealEnvironment(
  environment: readonly string[],
  hub: SecretUnsealer | undefined,
): Promise<string[]> {
  return Promise.all(
    environment.map(async (variable) => {
      if (!isSealed(variable)) return variable;
      const at = variable.indexOf('=') + 1;
      const value = variable.slice(at);
      const name = variable.slice(0, at - 1);
      if (hub === undefined) {
        throw new SealpodError(
          'UNSUPPORTED',
          `environment variable ${name} is a sealed secret, and there is no data hub to open it`,
        );
      }
      return `${name}=${await hub.unseal(value)}`;
    }),
  );
}
