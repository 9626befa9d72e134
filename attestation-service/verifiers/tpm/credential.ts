import { createHash, createHmac } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, decodeBase64, parseJson, stringMember } from '@sealpod/protocol/json';
import { makeCredential, objectName, sized } from '@sealpod/protocol/tpm';
import { parseCertificate } from '../../endorsements/certificate.ts';

/**
 * The secret a TPM must release to prove that an attestation key lives in it. It is derived, not stored, so that any
 * replica that holds the challenge key can check the answer to any challenge.
 *
 * @param nonce the session's nonce, as text: a secret proves the key for one session only
 * @param name of the attestation key's object
 * @param endorsementCertificate DER
 */
export function activationSecret(
  challengeKey: Uint8Array,
  nonce: string,
  name: Uint8Array,
  endorsementCertificate: Uint8Array,
): Buffer {
  return createHmac('sha256', challengeKey)
    .update('sealpod tpm activation')
    .update(sized(Buffer.from(nonce)))
    .update(sized(name))
    .update(createHash('sha256').update(endorsementCertificate).digest())
    .digest();
}

/**
 * Answers a challenge request of a guest: encrypts the activation secret to the endorsement key that it names.
 *
 * Not verified here: that the certificate chains to an enrolled root and that the key is a proper attestation key. Both
 * are checked with the evidence, where the decision is made and recorded; a secret for a foreign key proves nothing.
 *
 * @param parameters JSON text `{"nonce", "ek-certificate", "ak-public"}` (base64 DER, base64 TPMT_PUBLIC); empty for a
 * guest that has no proof to offer, as upstream's
 * @returns JSON text `{"credential-blob", "encrypted-secret"}`, both with their TPM2B sizes; empty for empty parameters
 * @throws SealpodError REQUEST_FORMAT, EV_FORMAT, UNSUPPORTED
 */
export function answerChallenge(challengeKey: Uint8Array, parameters: string): string {
  if (parameters === '') return '';
  const request = asJsonObject(
    parseJson(parameters, { what: 'tpm challenge request', maxSize: 32 * 1024, maxDepth: 2 }),
    'tee_params',
  );
  const nonce = stringMember(request, 'nonce');
  if (nonce.length === 0 || nonce.length > 1024) throw new SealpodError('REQUEST_FORMAT', 'nonce is of a wrong length');
  const certificate = decodeBase64(stringMember(request, 'ek-certificate'), { what: 'ek-certificate', maxBytes: 8192 });
  const name = objectName(decodeBase64(stringMember(request, 'ak-public'), { what: 'ak-public', maxBytes: 2048 }));
  const { credentialBlob, encryptedSecret } = makeCredential(
    parseCertificate(certificate).x509.publicKey,
    name,
    activationSecret(challengeKey, nonce, name, certificate),
  );
  return JSON.stringify({
    'credential-blob': credentialBlob.toString('base64'),
    'encrypted-secret': encryptedSecret.toString('base64'),
  });
}
