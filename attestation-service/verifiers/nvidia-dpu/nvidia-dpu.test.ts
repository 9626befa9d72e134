import { createHash, randomBytes, sign } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject } from '@sealpod/protocol/json';
import { parseDpuEvidence } from '@sealpod/protocol/nvidia-dpu';
import { failures } from '@sealpod/protocol/verdict';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { parseCertificate } from '../../endorsements/certificate.ts';
import { firmwareDigest, tcbInfo } from '../nvidia/testing/mint.ts';
import { type Issued, issue, rootOf } from '../testing/authority.ts';
import { dpuVerifier } from './index.ts';

const reportData = randomBytes(48);
const now = new Date('2026-06-01T00:10:00Z');
const expectations = { reportData, trustedAttestationKeys: [], now };
const begun = new Date('2026-06-01T00:00:00Z');

let root: Issued;
let device: Issued;
let alias: Issued;

beforeAll(async () => {
  root = await issue(undefined, 'CN=DPU Root', { authority: true });
  device = await issue(root, 'CN=bluefield3', { extensions: [tcbInfo()] });
  alias = await issue(device, 'CN=alias', { notBefore: begun });
});

interface Parts {
  readonly alias?: Issued;
  readonly device?: Issued;
  readonly signature?: Buffer;
  readonly signed?: Buffer;
}

function evidence(parts: Parts = {}, changes: JsonObject = {}): JsonObject {
  const own = parts.alias ?? alias;
  const signature =
    parts.signature ?? sign('sha384', parts.signed ?? reportData, { key: own.key, dsaEncoding: 'ieee-p1363' });
  return {
    version: 1,
    devices: [
      {
        architecture: 'bluefield3',
        alias_cert: own.der.toString('base64'),
        device_id_cert: (parts.device ?? device).der.toString('base64'),
        report_data_signature: signature.toString('base64'),
      },
    ],
    ...changes,
  };
}

async function refusals(value: JsonObject, against: object = {}): Promise<string[]> {
  try {
    const verifier = dpuVerifier('nvidia-dpu', { root: rootOf('test DPU', root), maxCertificateAgeSeconds: 3600 });
    const { verdict } = await verifier.verify(value, { ...expectations, ...against });
    return failures(verdict).map(({ check, code }) => `${check}: ${code}`);
  } catch (thrown) {
    if (thrown instanceof SealpodError) return [`thrown: ${thrown.code}`];
    throw thrown;
  }
}

const changedAt = (part: Issued, at: number): Issued => {
  const der = Buffer.from(part.der);
  der[at] = (der[at] ?? 0) ^ 1;
  return { ...part, der };
};

describe('evidence of a BlueField DPU', () => {
  it('is accepted with a signature of either form, and its claims are upstream’s', async () => {
    const verifier = dpuVerifier('nvidia-dpu', { root: rootOf('test DPU', root), maxCertificateAgeSeconds: 3600 });
    const { verdict, claims } = await verifier.verify(evidence(), expectations);
    expect(failures(verdict)).toEqual([]);
    const { sealpod, ...upstream } = claims;
    expect(upstream).toEqual({
      device_serial: parseCertificate(device.der).x509.serialNumber.toLowerCase().replace(/^0+/, ''),
      device_class: 'bluefield3',
      firmware_layers_count: 2,
      accumulated_fwid: createHash('sha384').update(firmwareDigest).update(Buffer.alloc(48)).digest('hex'),
      alias_timestamp: begun.getTime() / 1000,
      session_nonce: reportData.toString('hex'),
    });
    expect(sealpod).toMatchObject({ architecture: 'bluefield3' });
    expect(await refusals(evidence({ signature: sign('sha384', reportData, alias.key) }))).toEqual([]);
  });

  const signature = 'signature of the report data: EV_BINDING_MISMATCH';
  const ofAlias = 'certificate of the signing key: EV_CERT_CHAIN';
  const ofDevice = 'certificate of the device: EV_CERT_CHAIN';
  const ofAge = 'age of the signing key: EV_COLLATERAL_EXPIRED';
  const cases: [string, () => JsonObject | Promise<JsonObject>, string[], object?][] = [
    ['other report data', () => evidence({ signed: randomBytes(48) }), [signature]],
    ['no runtime data', () => evidence(), [signature], { reportData: undefined }],
    ['a signature of the device', () => evidence({ signature: sign('sha384', reportData, device.key) }), [signature]],
    ['an empty signature', () => evidence({ signature: Buffer.alloc(0) }), [signature]],
    [
      'a key that another device made',
      async () => {
        const other = await issue(root, 'CN=bluefield3', { extensions: [tcbInfo()] });
        return evidence({ alias: await issue(other, 'CN=alias', { notBefore: begun }) });
      },
      [ofAlias],
    ],
    [
      'a key of another name',
      async () => evidence({ alias: await issue(root, 'CN=alias', { notBefore: begun }) }),
      [ofAlias],
    ],
    [
      'a device of another root',
      async () => {
        const other = await issue(undefined, 'CN=DPU Root', { authority: true });
        const strange = await issue(other, 'CN=bluefield3', { extensions: [tcbInfo()] });
        return evidence({ device: strange, alias: await issue(strange, 'CN=alias', { notBefore: begun }) });
      },
      [ofDevice],
    ],
    [
      'a device whose certificate ended',
      async () => {
        const ended = await issue(root, 'CN=bluefield3', { notAfter: new Date('2025-01-01') });
        return evidence({ device: ended, alias: await issue(ended, 'CN=alias', { notBefore: begun }) });
      },
      [ofDevice],
    ],
    ['an old key', () => evidence(), [ofAge], { now: new Date('2026-06-01T01:00:01Z') }],
    ['a key to come', () => evidence(), [ofAge], { now: new Date('2026-05-31T23:59:59Z') }],
    [
      'a key whose certificate ended',
      async () =>
        evidence({
          alias: await issue(device, 'CN=alias', { notBefore: begun, notAfter: new Date('2026-06-01T00:05:00Z') }),
        }),
      [ofAge],
    ],
    [
      'initdata, which nothing binds',
      () => evidence(),
      ['initdata: INITDATA_DIGEST'],
      { initDataDigest: randomBytes(32) },
    ],
    ['no device', () => evidence({}, { devices: [] }), ['thrown: EV_FORMAT']],
    [
      'two devices',
      () => {
        const one = evidence()['devices'];
        return evidence({}, { devices: [...(one as JsonObject[]), ...(one as JsonObject[])] });
      },
      ['thrown: EV_FORMAT'],
    ],
    ['another version', () => evidence({}, { version: 2 }), ['thrown: EV_FORMAT']],
    [
      'a certificate that is none',
      () => evidence({ device: { ...device, der: Buffer.from('x') } }),
      ['thrown: EV_FORMAT'],
    ],
    [
      'a certificate that is too large',
      () => evidence({ device: { ...device, der: Buffer.alloc(9000) } }),
      ['thrown: REQUEST_TOO_LARGE'],
    ],
  ];
  it.each(cases)('is refused with %s', async (_, make, expected, against = {}) => {
    expect(await refusals(await make(), against)).toEqual(expected);
  });

  it('is refused at every changed byte of its certificates', async () => {
    for (let at = 0; at < alias.der.length; at += 7)
      expect(await refusals(evidence({ alias: changedAt(alias, at) })), `alias ${at}`).not.toEqual([]);
    for (let at = 0; at < device.der.length; at += 7)
      expect(await refusals(evidence({ device: changedAt(device, at) })), `device ${at}`).not.toEqual([]);
  });

  it('is parsed to a value or an error of the service’s own, whatever it is', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        try {
          parseDpuEvidence(value as JsonObject);
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(SealpodError);
        }
      }),
    );
  });
});
