import { expect, it } from 'vitest';
import { TestAmd } from '../verifiers/snp/testing/mint.ts';
import { parseCertificate } from './certificate.ts';

it('a certificate whose key cannot be decoded is malformed, with a typed error, before anything is verified with it', async () => {
  const { ask } = await TestAmd.create();
  expect(parseCertificate(ask.der).x509.publicKey.asymmetricKeyType).toBe('ec');
  // The first byte of the point (4: uncompressed), after the identifier of the curve and the head of the bit string.
  const at = ask.der.indexOf(Buffer.from('06052b81040022', 'hex')) + 7 + 3;
  expect(ask.der[at]).toBe(4);
  const changed = Buffer.from(ask.der);
  changed[at] = 0x77;
  expect(() => parseCertificate(changed)).toThrow(expect.objectContaining({ code: 'EV_FORMAT' }));
});

it('a certificate with a date that is none is malformed: such a date is later than none', async () => {
  const { ask } = await TestAmd.create();
  const changed = Buffer.from(ask.der);
  // The first date is a UTCTime, whose month becomes 94.
  const at = ask.der.indexOf(Buffer.from('170d', 'hex')) + 2;
  expect(ask.der.subarray(at, at + 12).toString()).toMatch(/^\d{12}$/);
  changed.write('94', at + 2);
  expect(() => parseCertificate(changed)).toThrow(expect.objectContaining({ code: 'EV_FORMAT' }));
});
