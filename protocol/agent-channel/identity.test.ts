import { createSecureContext } from 'node:tls';
import { expect, it } from 'vitest';
import { createChannelIdentity, restoreChannelIdentity } from './identity.ts';

it('makes a certificate that TLS takes, however long its signature is', async () => {
  const { privateKey: key } = await createChannelIdentity();
  const lengths = new Set<number>();
  // One signature of some hundreds is so short that the last line of the certificate is full.
  for (let made = 0; made < 5000; made++) {
    const { certificate } = restoreChannelIdentity(key);
    expect(certificate).not.toContain('\n\n');
    if (!lengths.has(certificate.length)) createSecureContext({ key, cert: certificate });
    lengths.add(certificate.length);
  }
});
