import { SealpodError } from '@sealpod/protocol/errors';

/** A revocation list as places write it: DER, hexadecimal of it (caching services), or PEM. @throws SealpodError EV_FORMAT */
export function revocationListBytes(answer: Buffer): Buffer {
  if (answer[0] === 0x30) return answer;
  const text = answer.toString('latin1').trim().replace(/\0+$/, '');
  if (/^([0-9a-fA-F]{2})+$/.test(text)) return Buffer.from(text, 'hex');
  const pem = /^-----BEGIN X509 CRL-----([A-Za-z0-9+/=\s]+)-----END X509 CRL-----$/.exec(text)?.[1];
  if (pem !== undefined) return Buffer.from(pem, 'base64');
  throw new SealpodError('EV_FORMAT', 'not a revocation list', { expected: 'DER, hexadecimal or PEM' });
}
