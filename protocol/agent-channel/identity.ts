import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPair,
  type KeyObject,
  randomBytes,
  sign,
} from 'node:crypto';
import type { SecureContextOptions } from 'node:tls';
import { promisify } from 'node:util';

/** One end's key, and the certificate that TLS wants around it. */
export interface ChannelIdentity {
  /** PKCS#8 PEM. */
  readonly privateKey: string;
  /** PEM. Nothing in it is looked at but the key. */
  readonly certificate: string;
  /** See {@link keyDigest}. */
  readonly keySha256: string;
}

/** What both ends agree on without negotiation. */
export const channelTls = {
  minVersion: 'TLSv1.3',
  ciphers: 'TLS_AES_128_GCM_SHA256',
  ecdhCurve: 'X25519',
} as const satisfies SecureContextOptions;

/** SHA-256 of the key's SubjectPublicKeyInfo, hex: by this it is pinned. */
export function keyDigest(publicKey: KeyObject): string {
  return createHash('sha256')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest('hex');
}

/** A new key (EC P-256) that exists nowhere else. */
export async function createChannelIdentity(): Promise<ChannelIdentity> {
  const { privateKey } = await promisify(generateKeyPair)('ec', { namedCurve: 'P-256' });
  return identityOf(privateKey);
}

/** The identity of a key that was kept (PKCS#8 PEM). Throws where it is none. */
export function restoreChannelIdentity(pem: string): ChannelIdentity {
  return identityOf(createPrivateKey(pem));
}

function identityOf(privateKey: KeyObject): ChannelIdentity {
  const publicKey = createPublicKey(privateKey);
  return {
    privateKey: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    certificate: selfSigned(privateKey, publicKey),
    keySha256: keyDigest(publicKey),
  };
}

/*
 * A self-signed certificate (RFC 5280 §4.1) without extensions. Written here because the guest has it made at each boot
 * and must not carry an X.509 library for a form that nobody reads.
 */
const tag = { integer: 0x02, bitString: 0x03, oid: 0x06, utf8String: 0x0c, sequence: 0x30, set: 0x31 } as const;
const generalizedTime = 0x18;
const ecdsaWithSha256 = Buffer.from('2a8648ce3d040302', 'hex');
const commonName = Buffer.from('550403', 'hex');
const forever = ['20200101000000Z', '99991231235959Z'];

function element(type: number, ...content: readonly Buffer[]): Buffer {
  const body = Buffer.concat(content);
  const length = body.length;
  const head = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([type, ...head]), body]);
}

function selfSigned(privateKey: KeyObject, publicKey: KeyObject): string {
  const algorithm = element(tag.sequence, element(tag.oid, ecdsaWithSha256));
  const serial = randomBytes(16);
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40;
  const attribute = element(
    tag.sequence,
    element(tag.oid, commonName),
    element(tag.utf8String, Buffer.from('sealpod')),
  );
  const name = element(tag.sequence, element(tag.set, attribute));
  const validity = element(tag.sequence, ...forever.map((time) => element(generalizedTime, Buffer.from(time))));
  const subjectKey = publicKey.export({ type: 'spki', format: 'der' });
  const body = element(tag.sequence, element(tag.integer, serial), algorithm, name, validity, name, subjectKey);
  const signature = element(tag.bitString, Buffer.from([0]), sign('sha256', body, privateKey));
  const encoded = element(tag.sequence, body, algorithm, signature).toString('base64');
  return `-----BEGIN CERTIFICATE-----\n${encoded.replace(/.{64}(?!$)/g, '$&\n')}\n-----END CERTIFICATE-----\n`;
}
