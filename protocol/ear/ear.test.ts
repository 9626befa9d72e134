import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type JsonObject, parseJson } from '../json/index.ts';
import { vectorPath } from '../testing/vectors.ts';
import { parseEarClaims, statusOf, teePubKeyOfEar, tierOf } from './index.ts';

const recorded = vectorPath('recorded/rcar/cli-affirming.json');

describe('trust tiers', () => {
  it('has the boundaries of AR4SI', () => {
    const at = (value: number): string => tierOf(value);
    expect([-128, -97, -96, -33, -32, -2, -1, 0, 1, 2, 31, 32, 95, 96, 127].map(at)).toEqual([
      'contraindicated',
      'contraindicated',
      'warning',
      'warning',
      'affirming',
      'affirming',
      'none',
      'none',
      'none',
      'affirming',
      'affirming',
      'warning',
      'warning',
      'contraindicated',
      'contraindicated',
    ]);
  });
  it('takes the worst claim', () => {
    expect(statusOf({})).toBe('none');
    expect(statusOf({ hardware: 2, executables: 3, configuration: 0 })).toBe('affirming');
    expect(statusOf({ hardware: 2, executables: 33 })).toBe('warning');
    expect(statusOf({ hardware: 97, executables: 3 })).toBe('contraindicated');
  });
});

describe('claims', () => {
  const payload = {
    eat_profile: 'p',
    iat: 1,
    exp: 2,
    iss: 'i',
    jti: 'c',
    'ear.verifier-id': { developer: 'd', build: 'b' },
    submods: {
      cpu0: {
        'ear.status': 'affirming',
        'ear.trustworthiness-vector': { hardware: 2 },
        'ear.appraisal-policy-id': 'default',
        'ear.veraison.annotated-evidence': {
          runtime_data_claims: { 'tee-pubkey': { kty: 'RSA', alg: 'a', n: 'n', e: 'e' } },
        },
        extra: [1],
      },
    },
  };
  it('round-trips, extensions included, and finds the TEE key', () => {
    const claims = parseEarClaims(payload);
    expect(claims).toEqual(payload);
    expect(teePubKeyOfEar(claims)).toEqual({ kty: 'RSA', alg: 'a', n: 'n', e: 'e' });
  });
  it.each(['eat_profile', 'iat', 'exp', 'iss', 'ear.verifier-id', 'submods'])('requires %s', (name) => {
    const { [name]: _left, ...rest } = payload as JsonObject;
    expect(() => parseEarClaims(rest)).toThrow(name);
  });
  it('refuses unknown statuses and trust claims', () => {
    const altered = (member: string, value: unknown): JsonObject =>
      ({ ...payload, submods: { cpu0: { ...payload.submods.cpu0, [member]: value } } }) as JsonObject;
    expect(() => parseEarClaims(altered('ear.status', 'fine'))).toThrow('ear.status');
    expect(() => parseEarClaims(altered('ear.trustworthiness-vector', { luck: 2 }))).toThrow('unknown trust claim');
  });
  it('reads tokens of upstream, and their status is the worst tier of their vector', (context) => {
    if (!existsSync(recorded)) context.skip(`no recorded exchanges at ${recorded}`);
    const { exchanges } = JSON.parse(readFileSync(recorded, 'utf8')) as {
      exchanges: { response: { body_utf8?: string } }[];
    };
    const tokens = exchanges.flatMap(({ response }) =>
      response.body_utf8?.startsWith('{"token"') ? [JSON.parse(response.body_utf8).token as string] : [],
    );
    expect(tokens.length).toBeGreaterThan(0);
    for (const token of tokens) {
      const claims = parseEarClaims(parseJson(Buffer.from(token.split('.')[1] ?? '', 'base64url')) as JsonObject);
      const cpu = claims.submods['cpu0'];
      expect(statusOf(cpu?.['ear.trustworthiness-vector'] ?? {})).toBe(cpu?.['ear.status']);
      expect(teePubKeyOfEar(claims)?.kty).toBe('EC');
    }
  });
});
