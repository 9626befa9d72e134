import {
  createCipheriv,
  createHash,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto';
import { type HostKey, ultravisorPoint } from '../../endorsements/ibm/host-keys.ts';

const version = 0x100;
const hmacSha512 = 1;
/** With a nonce; and the hashes of the host keys that opened the image and the request in the additional data. */
const flags = 0x7000_0000_0000_0000n;
const headerBytes = 48;
const slotBytes = 80;
const tagBytes = 16;

/** What only the Ultravisor of a machine with one of the host keys can read of a request. */
export interface RequestSecrets {
  /** 64 bytes. */
  readonly measurementKey: Buffer;
  /** 16 bytes. */
  readonly nonce: Buffer;
}

/** Bytes of the additional data that a request asks for: two hashes. */
export const additionalBytes = 64;
/** Bytes of a measurement: HMAC with SHA-512. */
export const measurementBytes = 64;

export function newRequestSecrets(): RequestSecrets {
  return { measurementKey: randomBytes(64), nonce: randomBytes(16) };
}

/**
 * Builds an attestation request control block (s390-tools: rust/pv, `AttestationRequest`; integers are big-endian): header,
 * flags and algorithm, the key of this request, a slot for each host key, and the secrets, encrypted with AES-256-GCM.
 */
export function buildRequest(secrets: RequestSecrets, hostKeys: readonly HostKey[]): Buffer {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-521' });
  const [protectionKey, initializationVector] = [randomBytes(32), randomBytes(12)];
  const header = Buffer.alloc(headerBytes);
  const confidential = Buffer.concat([secrets.measurementKey, secrets.nonce]);
  const authenticated = headerBytes + 16 + 160 + hostKeys.length * slotBytes;
  // The first eight bytes are zero: that is the magic value of attestation requests.
  header.writeUInt32BE(version, 8);
  header.writeUInt32BE(authenticated + confidential.length + tagBytes, 12);
  initializationVector.copy(header, 16);
  header.writeUInt8(hostKeys.length, 39);
  header.writeUInt32BE(confidential.length, 44);
  const settings = Buffer.alloc(16);
  settings.writeBigUInt64BE(flags, 0);
  settings.writeUInt32BE(hmacSha512, 8);
  const slots = hostKeys.map((hostKey) => keySlot(hostKey, privateKey, protectionKey));
  const open = Buffer.concat([header, settings, ultravisorPoint(publicKey), ...slots]);
  return Buffer.concat([open, encrypt(protectionKey, initializationVector, confidential, open)]);
}

/** The hash of a host key, and the protection key encrypted to it. */
function keySlot({ key: hostKey, hash }: HostKey, privateKey: KeyObject, protectionKey: Buffer): Buffer {
  const shared = diffieHellman({ privateKey, publicKey: hostKey });
  const wrapping = createHash('sha256')
    .update(shared)
    .update(Buffer.from([0, 0, 0, 1]))
    .digest();
  return Buffer.concat([hash, encrypt(wrapping, Buffer.alloc(12), protectionKey)]);
}

function encrypt(key: Buffer, iv: Buffer, plain: Buffer, additional: Buffer = Buffer.alloc(0)): Buffer {
  const cipher = createCipheriv('aes-256-gcm', key, iv);
  cipher.setAAD(additional);
  return Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}
