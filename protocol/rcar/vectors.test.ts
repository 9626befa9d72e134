import { createPrivateKey } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { vectorPath } from '../testing/vectors.ts';
import {
  decryptResponse,
  parseAttestation,
  parseChallenge,
  parseErrorInformation,
  parseRequest,
  parseResponse,
  runtimeDataDigest,
  serializeAttestation,
  serializeChallenge,
  serializeRequest,
  teePubKeyOf,
} from './index.ts';

const folder = vectorPath('recorded/rcar');

interface Recorded {
  readonly keys?: Record<string, { pem: string; jwk?: object }>;
  readonly exchanges: readonly {
    readonly label?: string;
    readonly request: { readonly method: string; readonly target: string; readonly body_utf8?: string };
    readonly response: {
      readonly status: number;
      readonly body_utf8?: string;
      readonly headers: readonly (readonly [string, string])[];
    };
    readonly jwe?: { readonly tee_key: string; readonly plain_base64: string };
  }[];
}

/** Exchanges of upstream's real programs; absent outside the workshop, and then this file says so. */
const recordings: [string, Recorded][] = existsSync(folder)
  ? readdirSync(folder).map((name) => [name, JSON.parse(readFileSync(`${folder}/${name}`, 'utf8')) as Recorded])
  : [];

describe('recorded RCAR exchanges', () => {
  it('decrypt: every response whose key was kept opens to its known plaintext', (context) => {
    if (recordings.length === 0) context.skip(`no recorded exchanges at ${folder}`);
    let opened = 0;
    for (const [, { exchanges, keys }] of recordings) {
      for (const { response, jwe } of exchanges) {
        if (jwe === undefined || response.body_utf8 === undefined) continue;
        const pem = keys?.[jwe.tee_key]?.pem ?? '';
        const received = parseResponse(response.body_utf8);
        if (Buffer.from(received.protected, 'base64url').toString().includes('RSA1_5')) {
          expect(() => decryptResponse(createPrivateKey(pem), received)).toThrow('unsupported algorithm');
          continue;
        }
        expect(decryptResponse(createPrivateKey(pem), received).toString('base64')).toBe(jwe.plain_base64);
        opened++;
      }
    }
    expect(opened).toBeGreaterThan(10);
  });

  it('report data of every attested session recomputes, and messages re-serialise byte for byte', (context) => {
    if (recordings.length === 0) context.skip(`no recorded exchanges at ${folder}`);
    let attestations = 0;
    let bytewise = 0;
    for (const [name, { exchanges }] of recordings) {
      for (const { label, request, response } of exchanges) {
        if (response.status !== 200 || request.body_utf8 === undefined || response.body_utf8 === undefined) continue;
        if (request.method === 'POST' && request.target === '/kbs/v0/auth') {
          const parsed = parseRequest(request.body_utf8);
          if (name.startsWith('cli-')) expect(serializeRequest(parsed)).toBe(request.body_utf8);
          expect(serializeChallenge(parseChallenge(response.body_utf8))).toBe(response.body_utf8);
        }
        if (request.method === 'POST' && request.target === '/kbs/v0/attest') {
          // Repeated attests on one session are answered without a look at the evidence.
          if (/twice|again|repeat|second|after/i.test(label ?? '')) continue;
          const attestation = parseAttestation(request.body_utf8);
          const { report_data: reported } = attestation.teeEvidence.primaryEvidence as { report_data?: string };
          if (reported === undefined) continue;
          const digest = runtimeDataDigest({
            ...attestation.runtimeData,
            additionalEvidence: attestation.teeEvidence.additionalEvidence,
          });
          expect(digest.toString('base64'), `${name} ${label}`).toBe(reported);
          attestations++;
          if (name.startsWith('cli-')) {
            expect(serializeAttestation(attestation)).toBe(request.body_utf8);
            bytewise++;
          }
        }
      }
    }
    expect(attestations).toBeGreaterThan(50);
    expect(bytewise).toBeGreaterThan(10);
  });

  it('reads every error body', (context) => {
    if (recordings.length === 0) context.skip(`no recorded exchanges at ${folder}`);
    let read = 0;
    for (const [, { exchanges }] of recordings) {
      for (const { response } of exchanges) {
        if (response.status !== 401 || !response.body_utf8?.startsWith('{')) continue;
        expect(parseErrorInformation(response.body_utf8).type).toMatch(
          /^https:\/\/github.com\/confidential-containers\/kbs\/errors\/[A-Za-z]+$/,
        );
        read++;
      }
    }
    expect(read).toBeGreaterThan(50);
  });

  it('derives the recorded tee-pubkey from the kept private keys', (context) => {
    const kept = recordings.flatMap(([, { keys }]) => Object.values(keys ?? {})).filter((key) => key.jwk !== undefined);
    if (kept.length === 0) context.skip(`no recorded exchanges at ${folder}`);
    for (const { pem, jwk } of kept) {
      const ours = teePubKeyOf(createPrivateKey(pem));
      if (JSON.stringify(jwk).includes('P-384')) continue;
      const { alg: _recorded, ...material } = jwk as Record<string, string>;
      expect(ours).toMatchObject(material);
    }
  });
});
