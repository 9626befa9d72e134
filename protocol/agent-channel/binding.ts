import { createHash } from 'node:crypto';

/** Qualifying data of the quote. Its beginning keeps it apart from everything else that an attestation key signs. */
export function channelBinding(nonce: Uint8Array, keySha256: string): Buffer {
  return digest('sealpod agent channel key\0', nonce, Buffer.from(keySha256, 'hex'));
}

/** What the guest shows of an activated secret: enough for who made it, useless for who made another. */
export function activationDigest(secret: Uint8Array): Buffer {
  return digest('sealpod agent channel activation\0', secret);
}

function digest(domain: string, ...parts: readonly Uint8Array[]): Buffer {
  const hash = createHash('sha256').update(domain);
  for (const part of parts) hash.update(part);
  return hash.digest();
}
