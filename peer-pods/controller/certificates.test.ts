import { createPublicKey, X509Certificate } from 'node:crypto';
import { expect, test } from 'vitest';
import { createPinnedCertificate, createServerCertificate, isCertificateFor } from './certificates.ts';

const now = new Date('2026-03-01T00:00:00Z');

test('a server certificate is signed by its authority, for its hosts alone', async () => {
  const made = await createServerCertificate(['webhook.system.svc'], { now, days: 90 });
  const [certificate, authority] = [new X509Certificate(made.certificate), new X509Certificate(made.authority)];
  expect(certificate.verify(authority.publicKey)).toBe(true);
  expect(authority.ca).toBe(true);
  expect(certificate.ca).toBe(false);
  expect(certificate.checkHost('webhook.other.svc')).toBeUndefined();
  expect(isCertificateFor(made.certificate, ['webhook.system.svc'], now, 89)).toBe(true);
  expect(isCertificateFor(made.certificate, ['webhook.system.svc'], now, 91)).toBe(false);
  expect(isCertificateFor(made.certificate, ['webhook.other.svc'], now, 1)).toBe(false);
  expect(isCertificateFor('nothing', [], now, 1)).toBe(false);
});

test('a pinned certificate can be made anew for more hosts with the key that guests know', async () => {
  const first = await createPinnedCertificate(['a.test'], { now, days: 3650 });
  const second = await createPinnedCertificate(['a.test', '192.0.2.1'], { now, days: 3650 }, first.privateKey);
  const key = (pem: string) => createPublicKey(pem).export({ type: 'spki', format: 'pem' });
  expect(key(second.certificate)).toEqual(key(first.certificate));
  expect(isCertificateFor(second.certificate, ['a.test', '192.0.2.1'], now, 3000)).toBe(true);
  expect(isCertificateFor(first.certificate, ['192.0.2.1'], now, 1)).toBe(false);
});
