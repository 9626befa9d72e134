import { hashFunction } from './hash.ts';

/** RSA signatures are verified with public values only, so that nothing here needs to take constant time. */
export interface RsaPublicKey {
  readonly modulus: bigint;
  readonly exponent: bigint;
  readonly modulusBits: number;
}

/** An attacker chooses keys in evidence: what OpenSSL refuses as too large is refused here. */
const maxModulusBits = 16_384;
const maxExponentBits = 64;

/** The DigestInfo before the digest (RFC 8017 section 9.2, note 1). */
const digestInfo: Readonly<Record<number, string>> = {
  20: '3021300906052b0e03021a05000414',
  28: '302d300d06096086480165030402040500041c',
  32: '3031300d060960864801650304020105000420',
  48: '3041300d060960864801650304020205000430',
  64: '3051300d060960864801650304020305000440',
};

export function rsaPublicKey(modulus: Uint8Array, exponent: Uint8Array): RsaPublicKey {
  const [n, e] = [integer(modulus), integer(exponent)];
  const modulusBits = n.toString(2).length;
  if (modulusBits < 512 || modulusBits > maxModulusBits || e.toString(2).length > maxExponentBits || e < 3n)
    throw new RangeError('RSA key of an unusable size');
  return { modulus: n, exponent: e, modulusBits };
}

/** RSASSA-PKCS1-v1_5 (RFC 8017 section 8.2.2): the encoded message is made and compared, never parsed. */
export function verifyPkcs1(key: RsaPublicKey, hash: string, message: Uint8Array, signature: Uint8Array): boolean {
  const encoded = recover(key, signature, Math.ceil(key.modulusBits / 8));
  const digest = hashFunction(hash)(message);
  const info = Buffer.concat([Buffer.from(digestInfo[digest.length] ?? '', 'hex'), digest]);
  if (encoded === undefined || encoded.length < info.length + 11) return false;
  const padding = Buffer.alloc(encoded.length - info.length - 3, 0xff);
  return encoded.equals(Buffer.concat([Buffer.from([0, 1]), padding, Buffer.from([0]), info]));
}

/** RSASSA-PSS (RFC 8017 sections 8.1.2 and 9.1.2); `saltLength` undefined accepts any. */
export function verifyPss(
  key: RsaPublicKey,
  { hash, maskHash = hash, saltLength }: { hash: string; maskHash?: string; saltLength?: number },
  message: Uint8Array,
  signature: Uint8Array,
): boolean {
  const bits = key.modulusBits - 1;
  const full = recover(key, signature, Math.ceil(key.modulusBits / 8));
  const length = Math.ceil(bits / 8);
  if (full === undefined || (full.length > length && full[0] !== 0)) return false;
  const encoded = full.subarray(full.length - length);
  const digest = hashFunction(hash)(message);
  const hashBytes = digest.length;
  if (length < hashBytes + 2 || encoded.at(-1) !== 0xbc) return false;
  const masked = encoded.subarray(0, length - hashBytes - 1);
  const expected = encoded.subarray(length - hashBytes - 1, length - 1);
  const unused = 8 * length - bits;
  if (((masked[0] ?? 0) & ~(0xff >> unused) & 0xff) !== 0) return false;
  const mask = maskOf(maskHash, expected, masked.length);
  const data = Buffer.from(masked.map((byte, index) => byte ^ (mask[index] ?? 0)));
  data[0] = (data[0] ?? 0) & (0xff >> unused);
  const separator = data.findIndex((byte) => byte !== 0);
  if (separator < 0 || data[separator] !== 1) return false;
  const salt = data.subarray(separator + 1);
  if (saltLength !== undefined && salt.length !== saltLength) return false;
  const again = hashFunction(hash)(Buffer.concat([Buffer.alloc(8), digest, salt]));
  return Buffer.from(again).equals(expected);
}

/** MGF1 (RFC 8017 appendix B.2.1). */
function maskOf(hash: string, seed: Uint8Array, length: number): Buffer {
  const parts: Uint8Array[] = [];
  for (let counter = 0, made = 0; made < length; counter += 1) {
    const count = Buffer.alloc(4);
    count.writeUInt32BE(counter);
    const part = hashFunction(hash)(Buffer.concat([seed, count]));
    parts.push(part);
    made += part.length;
  }
  return Buffer.concat(parts).subarray(0, length);
}

function recover(key: RsaPublicKey, signature: Uint8Array, length: number): Buffer | undefined {
  const value = integer(signature);
  if (signature.length !== length || value >= key.modulus) return undefined;
  let [result, base, exponent] = [1n, value, key.exponent];
  for (; exponent > 0n; exponent >>= 1n) {
    if ((exponent & 1n) === 1n) result = (result * base) % key.modulus;
    base = (base * base) % key.modulus;
  }
  return Buffer.from(result.toString(16).padStart(length * 2, '0'), 'hex');
}

function integer(bytes: Uint8Array): bigint {
  return BigInt(`0x0${Buffer.from(bytes).toString('hex')}`);
}
