/** TPM_ALG_ID (TCG Algorithm Registry): the algorithms this project meets. */
export const Algorithm = {
  rsa: 0x0001,
  sha1: 0x0004,
  aes: 0x0006,
  keyedHash: 0x0008,
  sha256: 0x000b,
  sha384: 0x000c,
  sha512: 0x000d,
  null: 0x0010,
  sm3: 0x0012,
  rsaSsa: 0x0014,
  rsaPss: 0x0016,
  ecDsa: 0x0018,
  ecc: 0x0023,
  symCipher: 0x0025,
  cfb: 0x0043,
} as const;

/** TPM_ECC_CURVE. */
export const Curve = { p256: 0x0003, p384: 0x0004, p521: 0x0005 } as const;

/** TPMA_OBJECT (TPM 2.0 Part 2 §8.3). */
export const ObjectAttribute = {
  fixedTpm: 0x0000_0002,
  stClear: 0x0000_0004,
  fixedParent: 0x0000_0010,
  sensitiveDataOrigin: 0x0000_0020,
  userWithAuth: 0x0000_0040,
  adminWithPolicy: 0x0000_0080,
  noDictionaryAttack: 0x0000_0400,
  encryptedDuplication: 0x0000_0800,
  restricted: 0x0001_0000,
  decrypt: 0x0002_0000,
  sign: 0x0004_0000,
} as const;

/** TPM_RH and well-known handles (Part 2 §7.4; TCG EK Credential Profile §2.2.1.4). */
export const Handle = {
  owner: 0x4000_0001,
  null: 0x4000_0007,
  password: 0x4000_0009,
  endorsement: 0x4000_000b,
  ekRsa2048: 0x8101_0001,
  ekCertificateRsa2048: 0x01c0_0002,
} as const;

/** Hashes as Node's crypto names them. */
export type TpmHash = 'sha1' | 'sha256' | 'sha384' | 'sha512';

const hashes: Readonly<Record<number, TpmHash>> = {
  [Algorithm.sha1]: 'sha1',
  [Algorithm.sha256]: 'sha256',
  [Algorithm.sha384]: 'sha384',
  [Algorithm.sha512]: 'sha512',
};

/** The hash of a TPM_ALG_ID; undefined where it is none we can compute. */
export function hashName(algorithm: number): TpmHash | undefined {
  return hashes[algorithm];
}

/** Digest size in bytes. */
export const digestBytes: Readonly<Record<TpmHash, number>> = { sha1: 20, sha256: 32, sha384: 48, sha512: 64 };
