import { createPublicKey, type KeyObject, timingSafeEqual } from 'node:crypto';
import type { CcaToken } from '@sealpod/protocol/cca';
import { tierOf } from '@sealpod/protocol/ear';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonObject, objectMember, optionalMember, stringMember } from '@sealpod/protocol/json';
import { regularise } from '@sealpod/protocol/rcar';
import type { Verdict } from '@sealpod/protocol/verdict';
import { compactVerify } from 'jose';
import type { VeraisonService } from '../../endorsements/veraison/client.ts';
import { check } from '../check.ts';
import type { Expectations } from '../verifier.ts';

/** What a service found. */
export interface ServiceAppraisal {
  readonly checks: readonly Verdict[];
  /** For claims. */
  readonly details: JsonObject;
}

const firstMediaType = 'application/eat-collection; profile="http://arm.com/CCA-SSD/1.0.0"';

/** The first type of those accepted that is for tokens of CCA; what the first tokens were called where none is. */
function mediaType(accepted: readonly string[]): string {
  return accepted.find((type) => /^application\/(eat-collection|cmw).*\bcca/i.test(type)) ?? firstMediaType;
}

const submodules = { platform: 'CCA_SSD_PLATFORM', realm: 'CCA_REALM' } as const;

/**
 * Has a Veraison service appraise the token, and verifies its result (EAR, draft-fv-rats-ear): signed by one of `keys`, or
 * by the key that the service publishes; about this nonce and this token; platform and realm instance affirmed.
 * What the service says of the realm's measurements is for policies.
 */
export async function appraiseByService(
  token: CcaToken,
  service: VeraisonService,
  keys: readonly KeyObject[] | undefined,
  expectations: Expectations,
): Promise<ServiceAppraisal> {
  const name = 'verification service';
  try {
    const nonce = regularise(expectations.reportData ?? token.realm.challenge, 64);
    const result = await service.appraise(token.bytes, mediaType, nonce);
    const trusted = keys ?? [createPublicKey({ key: await service.resultKey(), format: 'jwk' })];
    const ear = await verifiedResult(result, trusted);
    if (ear === undefined) {
      return {
        checks: [
          check(`${name}: result signature`, false, 'EV_SIGNATURE', {
            expected: service.name,
            actual: 'not by its key',
          }),
        ],
        details: {},
      };
    }
    return judge(ear, token, nonce, service.name, expectations.now);
  } catch (thrown) {
    const { code, message, detail } = asSealpodError(thrown);
    return { checks: [{ check: name, code, actual: message, ...detail, source: service.name }], details: {} };
  }
}

async function verifiedResult(jwt: string, keys: readonly KeyObject[]): Promise<JsonObject | undefined> {
  for (const key of keys) {
    try {
      const { payload } = await compactVerify(jwt, key, { algorithms: ['ES256', 'ES384', 'ES512', 'EdDSA', 'PS256'] });
      return asJsonObject(JSON.parse(Buffer.from(payload).toString('utf8')), 'attestation result', 'EV_FORMAT');
    } catch {
      // The next key may be the one; none is told by the caller.
    }
  }
  return undefined;
}

function judge(ear: JsonObject, token: CcaToken, nonce: Buffer, source: string, now: Date): ServiceAppraisal {
  const code = 'EV_FORMAT';
  const submods = objectMember(ear, 'submods', code);
  const platform = objectMember(submods, submodules.platform, code);
  const realm = objectMember(submods, submodules.realm, code);
  const returned = Buffer.from(stringMember(ear, 'eat_nonce', code), 'base64');
  const expires = optionalMember(ear, 'exp');
  const identity = vector(realm)['instance-identity'];
  const status = stringMember(platform, 'ear.status', code);
  return {
    checks: [
      check(
        'verification service: nonce',
        returned.length === nonce.length && timingSafeEqual(returned, nonce),
        'EV_NONCE_MISMATCH',
        {
          expected: nonce.toString('hex'),
          actual: returned.toString('hex'),
          source,
        },
      ),
      check(
        'verification service: age of the result',
        expires === undefined || (typeof expires === 'number' && expires * 1000 > now.getTime()),
        'EV_COLLATERAL_EXPIRED',
        { expected: 'a result that has not expired', actual: String(expires), source },
      ),
      ...checkSameToken(platform, realm, token, source),
      check('verification service: platform', status === 'affirming', 'EV_REFUSED', {
        expected: 'affirming',
        actual: `${status.slice(0, 100)} ${JSON.stringify(vector(platform))}`,
        source,
      }),
      check(
        'verification service: realm instance',
        typeof identity === 'number' && tierOf(identity) === 'affirming',
        'EV_REFUSED',
        { expected: 'an affirmed instance identity', actual: JSON.stringify(vector(realm)), source },
      ),
    ],
    details: {
      appraised_by: source,
      platform_trust_vector: vector(platform),
      realm_status: optionalMember(realm, 'ear.status') ?? null,
      realm_trust_vector: vector(realm),
    },
  };
}

/** The nonce alone does not say which token was appraised: a realm can ask for many with one challenge. */
function checkSameToken(platform: JsonObject, realm: JsonObject, token: CcaToken, source: string): Verdict[] {
  const annotated = (submodule: JsonObject): JsonObject =>
    objectMember(submodule, 'ear.veraison.annotated-evidence', 'EV_FORMAT');
  const wanted = [
    [annotated(platform), 'cca-platform-instance-id', token.platform.instanceId],
    [annotated(platform), 'cca-platform-implementation-id', token.platform.implementationId],
    [annotated(realm), 'cca-realm-initial-measurement', token.realm.initialMeasurement],
    [annotated(realm), 'cca-realm-personalization-value', token.realm.personalizationValue],
  ] as const;
  return wanted.map(([claims, name, expected]) => {
    const claim = optionalMember(claims, name);
    const actual = typeof claim === 'string' ? Buffer.from(claim, 'base64') : undefined;
    return check(`verification service: ${name}`, actual?.equals(expected) === true, 'EV_PART_MIX', {
      expected: expected.toString('hex'),
      actual: actual?.toString('hex') ?? 'nothing',
      source,
    });
  });
}

function vector(submodule: JsonObject): JsonObject {
  const value = optionalMember(submodule, 'ear.trustworthiness-vector');
  return value === undefined ? {} : asJsonObject(value, 'ear.trustworthiness-vector', 'EV_FORMAT');
}

/** Keys from a JWK or a JWKS. @throws SealpodError USAGE */
export function readResultKeys(document: JsonObject): KeyObject[] {
  const keys = optionalMember(document, 'keys') ?? [document];
  if (!Array.isArray(keys) || keys.length === 0) throw new SealpodError('USAGE', 'keysFile holds no keys');
  return keys.map((key) => {
    try {
      return createPublicKey({ key: asJsonObject(key, 'key', 'USAGE'), format: 'jwk' });
    } catch (cause) {
      throw new SealpodError('USAGE', 'a key of keysFile cannot be read', { cause });
    }
  });
}
