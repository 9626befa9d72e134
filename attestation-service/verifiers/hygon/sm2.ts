import { createHash } from 'node:crypto';
import { weierstrass } from '@noble/curves/abstract/weierstrass.js';
import type { Sm2PublicKey, Sm2Signature } from '@sealpod/protocol/hygon';

/** The recommended curve (GB/T 32918.5). Node's own SM2 cannot be told the signer's identity, which is hashed in. */
const parameters = {
  p: 0xfffffffeffffffffffffffffffffffffffffffff00000000ffffffffffffffffn,
  n: 0xfffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54123n,
  h: 1n,
  a: 0xfffffffeffffffffffffffffffffffffffffffff00000000fffffffffffffffcn,
  b: 0x28e9fa9e9d9f5e344d5a9e4bcf6509a7f39789f515ab8f92ddbcbd414d940e93n,
  Gx: 0x32c4ae2c1f1981195f9904466a39c9948fe30bbff2660be1715a4589334c74c7n,
  Gy: 0xbc3736a2f4f6779c59bdcee36b692153d0a9877cc62a474002df32e52139f0a0n,
};

/** Points of SM2's curve. */
export const Sm2Point = weierstrass(parameters);
/** The order of the curve's group. */
export const sm2Order = parameters.n;

/** A number as 32 bytes, big-endian. */
export function sm2Bytes(value: bigint): Buffer {
  return Buffer.from(value.toString(16).padStart(64, '0'), 'hex');
}

/** A number of 32 bytes, big-endian. */
export function sm2Number(bytes: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(bytes).toString('hex')}`);
}

/** The number that is signed: SM3 over the digest of signer and curve, and the message (GB/T 32918.2 sections 5.5 and 6.1). */
export function sm2Digest({ x, y, identity }: Sm2PublicKey, message: Uint8Array): bigint {
  const bits = Buffer.alloc(2);
  bits.writeUInt16BE(identity.length * 8);
  const { a, b, Gx, Gy } = parameters;
  const curve = [a, b, Gx, Gy].map(sm2Bytes);
  const signer = createHash('sm3')
    .update(Buffer.concat([bits, identity, ...curve, x, y]))
    .digest();
  return sm2Number(createHash('sm3').update(signer).update(message).digest());
}

/** Whether a key made a signature of a message (GB/T 32918.2 section 7.1). False for a key that is no point of the curve. */
export function verifySm2(key: Sm2PublicKey, message: Uint8Array, signature: Sm2Signature): boolean {
  const [r, s] = [sm2Number(signature.r), sm2Number(signature.s)];
  if (r <= 0n || r >= sm2Order || s <= 0n || s >= sm2Order) return false;
  const t = (r + s) % sm2Order;
  const point = pointOf(key);
  if (t === 0n || point === undefined) return false;
  const sum = Sm2Point.BASE.mulAddUnsafe(s, point, t);
  return !sum.is0() && (sm2Digest(key, message) + sum.toAffine().x) % sm2Order === r;
}

function pointOf({ x, y }: Sm2PublicKey): InstanceType<typeof Sm2Point> | undefined {
  try {
    const point = Sm2Point.fromAffine({ x: sm2Number(x), y: sm2Number(y) });
    point.assertValidity();
    return point;
  } catch {
    return undefined;
  }
}
