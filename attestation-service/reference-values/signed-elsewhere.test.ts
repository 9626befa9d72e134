import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { asSealpodError } from '@sealpod/protocol/errors';
import type { JsonObject } from '@sealpod/protocol/json';
import { describe, expect, it } from 'vitest';
import { openSigners } from './config.ts';
import { openCorim } from './corim/index.ts';
import { openEnvelope } from './dsse.ts';
import { readReferenceValueMessage } from './message.ts';
import { parseStatement } from './statement.ts';

interface Envelope {
  readonly publicKey: string;
  readonly envelope: JsonObject;
}

/** Where each comes from and under which licence stands beside it. */
const recorded = JSON.parse(readFileSync(new URL('./testing/signed-elsewhere.json', import.meta.url), 'utf8')) as {
  readonly envelopes: Readonly<Record<string, Envelope>>;
  readonly corims: { readonly publicKey: string } & Readonly<Record<string, { readonly corim: string }>>;
};
const now = new Date('2026-06-01T00:00:00Z');
const signersOf = (publicKey: string) => openSigners({ signers: [{ name: 'elsewhere', publicKey }] });
const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ type: 'spki', format: 'pem' });
const rules = (publicKey: string) => ({ config: {}, signers: signersOf(publicKey), now });
const bytesOf = (value: JsonObject): Buffer => Buffer.from(JSON.stringify(value));
const message = (type: string, bytes: Buffer): string => JSON.stringify({ type, payload: bytes.toString('base64') });
const refusal = (work: () => unknown) => {
  try {
    work();
    return { code: 'OK' };
  } catch (thrown) {
    const { code, detail } = asSealpodError(thrown);
    return { code, ...detail };
  }
};

describe('DSSE envelopes that others signed', () => {
  it.each(Object.entries(recorded.envelopes))(
    '%s: verifies with its key, with no other, and unchanged only',
    (_name, one) => {
      const signers = signersOf(one.publicKey);
      expect(openEnvelope(bytesOf(one.envelope), signers).signers).toEqual(signers);
      expect(openEnvelope(bytesOf(one.envelope), signersOf(String(stranger))).signers).toEqual([]);
      const payload = Buffer.from(String(one.envelope['payload']), 'base64');
      payload[payload.length >> 1] = (payload[payload.length >> 1] ?? 0) ^ 1;
      const forged = { ...one.envelope, payload: payload.toString('base64') };
      expect(openEnvelope(bytesOf(forged), signers).signers).toEqual([]);
    },
  );

  it.each(['ed25519', 'ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp384'])(
    'securesystemslib, %s: its reference values are accepted, from a stranger refused',
    (scheme) => {
      const one = recorded.envelopes[`securesystemslib, ${scheme}`] as Envelope;
      const text = message('dsse', bytesOf(one.envelope));
      expect(readReferenceValueMessage(text, rules(one.publicKey))).toMatchObject({
        values: { launch_digest: ['abcde'] },
        provenance: { kind: 'signed', format: 'dsse', signers: ['elsewhere'] },
      });
      expect(refusal(() => readReferenceValueMessage(text, rules(String(stranger))))).toMatchObject({
        code: 'RV_SIGNATURE',
      });
    },
  );

  it.each([
    ['sigstore, statement v0.1', 'https://slsa.dev/provenance/v0.2'],
    ['sigstore, statement v1', 'https://slsa.dev/provenance/v1'],
  ])('%s: a statement about something else is no reference value, whoever signed it', (name, predicateType) => {
    const { publicKey, envelope } = recorded.envelopes[name] as Envelope;
    const { payloadType, payload } = openEnvelope(bytesOf(envelope), []);
    expect(refusal(() => parseStatement(payloadType, payload))).toMatchObject({
      code: 'UNSUPPORTED',
      actual: predicateType,
    });
    expect(
      refusal(() => readReferenceValueMessage(message('dsse', bytesOf(envelope)), rules(publicKey))),
    ).toMatchObject({
      code: 'UNSUPPORTED',
    });
  });
});

describe("CoRIMs of Veraison's tools", () => {
  const { publicKey } = recorded.corims;
  const corim = (name: string): Buffer => Buffer.from(recorded.corims[name]?.corim ?? '', 'base64');
  const values = {
    'ACME/RoadRunner/digests': ['87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7'],
    'ACME/RoadRunner/svn': [3],
  };

  it('signed: reference values with the dates of header and manifest', () => {
    const text = message('corim', corim('cocli, signed'));
    expect(readReferenceValueMessage(text, rules(publicKey))).toEqual({
      values,
      expiresAt: '2026-11-01T00:00:00.000Z',
      provenance: {
        kind: 'signed',
        format: 'corim',
        signers: ['elsewhere'],
        issuedAt: '2026-05-02T00:00:00.000Z',
        digest: expect.any(String),
      },
    });
    expect(refusal(() => readReferenceValueMessage(text, rules(String(stranger))))).toMatchObject({
      code: 'RV_SIGNATURE',
    });
  });

  it('signed: refused with any byte of it changed', () => {
    const genuine = corim('cocli, signed');
    for (let index = 0; index < genuine.length; index += 1) {
      const forged = Buffer.from(genuine);
      forged[index] = (forged[index] ?? 0) ^ 1;
      const { code } = refusal(() => readReferenceValueMessage(message('corim', forged), rules(publicKey)));
      expect(['RV_SIGNATURE', 'RV_UNSIGNED', 'REQUEST_FORMAT', 'UNSUPPORTED'], `byte ${index}`).toContain(code);
    }
  });

  it('unsigned: as good as its sender', () => {
    const text = message('corim', corim('cocli, unsigned'));
    expect(refusal(() => readReferenceValueMessage(text, rules(publicKey)))).toMatchObject({ code: 'RV_UNSIGNED' });
    const administrator = { subject: 'ada', key: 'a' };
    expect(readReferenceValueMessage(text, { ...rules(publicKey), administrator })).toMatchObject({
      values,
      provenance: { kind: 'administrator' },
    });
  });

  it.each([
    ['veraison, reference values with flags', 'UNSUPPORTED', 'member 3'],
    ['veraison, CoMID, CoSWID and CoTS', 'UNSUPPORTED', '505'],
    ['veraison, bad signature', 'REQUEST_FORMAT', undefined],
  ])('%s: refused by name, not read in part', (name, code, actual) => {
    expect(refusal(() => openCorim(corim(name), signersOf(publicKey)))).toMatchObject({
      code,
      ...(actual === undefined ? {} : { actual }),
    });
  });
});
