import {
  constants,
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createPublicKey,
  type KeyObject,
  privateDecrypt,
  publicEncrypt,
  randomBytes,
} from 'node:crypto';
import type { RequestSecrets } from './request.ts';

/** The two values of a challenge that the guest carries back and cannot read. */
export interface SealedSecrets {
  readonly measurementKey: Buffer;
  readonly nonce: Buffer;
}

/** Keeps a request's secrets with the guest, so that nothing is stored between challenge and evidence. */
export interface SecretSeal {
  seal(secrets: RequestSecrets): SealedSecrets;
  /** Undefined for what this seal did not make. */
  open(sealed: SealedSecrets): RequestSecrets | undefined;
}

/**
 * Seals with a secret key, AES-256-GCM. The nonce is sealed to the measurement key it was made with.
 *
 * @param challengeKey 32 random bytes shared by all replicas
 */
export function secretSeal(challengeKey: Uint8Array): SecretSeal {
  const key = createHmac('sha256', challengeKey).update('se attestation request').digest();
  const seal = (plain: Buffer, context: Buffer): Buffer => {
    const iv = randomBytes(12);
    const cipher = createCipheriv('aes-256-gcm', key, iv).setAAD(context);
    return Buffer.concat([iv, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
  };
  const open = (sealed: Buffer, context: Buffer): Buffer => {
    const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, 12), { authTagLength: 16 }).setAAD(
      context,
    );
    decipher.setAuthTag(sealed.subarray(-16));
    return Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]);
  };
  const own = Buffer.from('measurement key');
  const nonceOf = (sealedKey: Buffer): Buffer => createHash('sha256').update('nonce').update(sealedKey).digest();
  return {
    seal: ({ measurementKey, nonce }) => {
      const sealed = seal(measurementKey, own);
      return { measurementKey: sealed, nonce: seal(nonce, nonceOf(sealed)) };
    },
    open: (sealed) =>
      orUndefined(() => ({
        measurementKey: open(sealed.measurementKey, own),
        nonce: open(sealed.nonce, nonceOf(sealed.measurementKey)),
      })),
  };
}

/** Seals as upstream does: each value encrypted to an RSA key (PKCS #1 version 1.5). */
export function rsaSeal(privateKey: KeyObject): SecretSeal {
  const publicKey = createPublicKey(privateKey.export({ format: 'pem', type: 'pkcs8' }));
  const padding = constants.RSA_PKCS1_PADDING;
  const open = (sealed: Buffer): Buffer => privateDecrypt({ key: privateKey, padding }, sealed);
  return {
    seal: ({ measurementKey, nonce }) => ({
      measurementKey: publicEncrypt({ key: publicKey, padding }, measurementKey),
      nonce: publicEncrypt({ key: publicKey, padding }, nonce),
    }),
    open: (sealed) => orUndefined(() => ({ measurementKey: open(sealed.measurementKey), nonce: open(sealed.nonce) })),
  };
}

/** Whatever is wrong with a sealed value, its sender is told no more than that it does not open. */
function orUndefined(work: () => RequestSecrets): RequestSecrets | undefined {
  try {
    const secrets = work();
    return secrets.measurementKey.length === 64 && secrets.nonce.length === 16 ? secrets : undefined;
  } catch {
    return undefined;
  }
}
