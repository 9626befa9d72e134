import { RsaSaPssParams } from '@peculiar/asn1-rsa';
import { AsnConvert } from '@peculiar/asn1-schema';
import { AlgorithmIdentifier } from '@peculiar/asn1-x509';
import { constants, type KeyObject, verify } from './public-key.ts';

/** How a certificate is signed. */
interface SignatureScheme {
  readonly hash: string;
  readonly pss?: { readonly saltLength: number };
  /** Whether a key is of the kind that makes such signatures. */
  fits(key: KeyObject): boolean;
}

const ecdsa: Readonly<Record<string, string>> = {
  '1.2.840.10045.4.3.2': 'sha256',
  '1.2.840.10045.4.3.3': 'sha384',
  '1.2.840.10045.4.3.4': 'sha512',
};
const pkcs1: Readonly<Record<string, string>> = {
  '1.2.840.113549.1.1.11': 'sha256',
  '1.2.840.113549.1.1.12': 'sha384',
  '1.2.840.113549.1.1.13': 'sha512',
};
const pssHashes: Readonly<Record<string, string>> = {
  '2.16.840.1.101.3.4.2.1': 'sha256',
  '2.16.840.1.101.3.4.2.2': 'sha384',
  '2.16.840.1.101.3.4.2.3': 'sha512',
};
const rsassaPss = '1.2.840.113549.1.1.10';
const maskGeneration = '1.2.840.113549.1.1.8';

/** The scheme of an algorithm identifier; undefined for one that is unknown or weak (SHA-1). */
export function signatureScheme({ algorithm, parameters }: AlgorithmIdentifier): SignatureScheme | undefined {
  const overCurve = ecdsa[algorithm];
  if (overCurve !== undefined) return { hash: overCurve, fits: ({ asymmetricKeyType }) => asymmetricKeyType === 'ec' };
  const rsa = pkcs1[algorithm];
  if (rsa !== undefined) return { hash: rsa, fits: ({ asymmetricKeyType }) => asymmetricKeyType === 'rsa' };
  if (algorithm !== rsassaPss || parameters === undefined || parameters === null) return undefined;
  return pssScheme(parameters);
}

function pssScheme(parameters: ArrayBuffer): SignatureScheme | undefined {
  const { hashAlgorithm, maskGenAlgorithm, saltLength, trailerField } = AsnConvert.parse(parameters, RsaSaPssParams);
  const hash = pssHashes[hashAlgorithm.algorithm];
  const mask = maskGenAlgorithm.parameters;
  if (hash === undefined || maskGenAlgorithm.algorithm !== maskGeneration || !mask || trailerField !== 1)
    return undefined;
  if (AsnConvert.parse(mask, AlgorithmIdentifier).algorithm !== hashAlgorithm.algorithm) return undefined;
  return { hash, pss: { saltLength }, fits: ({ asymmetricKeyType }) => asymmetricKeyType !== 'ec' };
}

/** Verifies what was signed under an algorithm identifier. */
export function verifyScheme(
  algorithm: AlgorithmIdentifier,
  key: KeyObject,
  signed: Uint8Array,
  signature: Uint8Array,
): boolean {
  const scheme = signatureScheme(algorithm);
  if (!scheme?.fits(key)) return false;
  const padding = scheme.pss && { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: scheme.pss.saltLength };
  return verify(scheme.hash, signed, { key, ...padding }, signature);
}
