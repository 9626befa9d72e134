import { asSealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  decodeBase64,
  type JsonObject,
  type JsonValue,
  optionalMember,
  stringMember,
} from '@sealpod/protocol/json';
import { regularise } from '@sealpod/protocol/rcar';
import type { Verdict } from '@sealpod/protocol/verdict';
import { allOf, check } from '../check.ts';
import type { Expectations, Verification, Verifier } from '../verifier.ts';
import { TrustAuthorityClient } from './client.ts';
import type { TrustAuthorityConfig, TrustAuthorityTee } from './config.ts';

const maxQuoteBytes = 64 * 1024;
const maxEventLogBytes = 1024 * 1024;
/** Fields of the quote that bind it, as the token names them, with their sizes. */
const bindings = {
  tdx: { reportData: 'tdx_report_data', initData: ['tdx_mrconfigid', 48] },
  sgx: { reportData: 'sgx_report_data', initData: ['sgx_config_id', 64] },
} as const;

/**
 * Verifiers that have quotes verified by Intel Trust Authority. Its token stands for the quote's signature, collateral and TCB;
 * that the quote is about this session and this initdata is compared here, with the fields that the token quotes. Claims are
 * the token's own (`tdx_mrtd`, `attester_tcb_status`, …), which policies for local verification do not know.
 */
export function trustAuthorityVerifiers(config: TrustAuthorityConfig): Verifier[] {
  const client = new TrustAuthorityClient(config);
  return config.tees.map((tee) => ({
    tee,
    verify: (evidence, expectations) => verify(client, config, tee, evidence, expectations),
  }));
}

async function verify(
  client: TrustAuthorityClient,
  config: TrustAuthorityConfig,
  tee: TrustAuthorityTee,
  evidence: JsonValue,
  expectations: Expectations,
): Promise<Verification> {
  const root = asJsonObject(evidence, `${tee} evidence`, 'EV_FORMAT');
  const decode = (text: string, what: string, maxBytes: number): Buffer =>
    decodeBase64(text, { what, maxBytes, code: 'EV_FORMAT' });
  const log = optionalMember(root, 'cc_eventlog') ?? undefined;
  const quote = decode(stringMember(root, 'quote', 'EV_FORMAT'), 'quote', maxQuoteBytes);
  const eventLog = typeof log === 'string' ? decode(log, 'cc_eventlog', maxEventLogBytes) : undefined;
  let token: JsonObject;
  try {
    token = await client.attest(tee, { quote, ...(eventLog === undefined ? {} : { eventLog }) }, expectations.now);
  } catch (thrown) {
    const { code, message, detail } = asSealpodError(thrown);
    const verdict = { check: 'verification service', code, actual: message, ...detail, source: client.name };
    return { verdict: allOf(`${tee} evidence`, [verdict]), claims: {} };
  }
  const { reportData, initData } = bindings[tee];
  return {
    verdict: allOf(`${tee} evidence`, [
      check('verification service', true, 'EV_REFUSED'),
      checkField('report data', token[reportData], expectations.reportData, 64, 'EV_BINDING_MISMATCH'),
      checkField('initdata', token[initData[0]], expectations.initDataDigest, initData[1], 'INITDATA_DIGEST'),
      checkPolicies(token, config),
    ]),
    claims: claimsOf(token, reportData, initData[0]),
  };
}

/** A field that must be in the token where something is expected of it. */
function checkField(
  name: string,
  claimed: JsonValue | undefined,
  expected: Buffer | undefined,
  size: number,
  code: 'EV_BINDING_MISMATCH' | 'INITDATA_DIGEST',
): Verdict {
  const field = expected && regularise(expected, size).toString('hex');
  const actual = typeof claimed === 'string' ? claimed.toLowerCase() : 'not in the token';
  return check(name, field === undefined || actual === field, code, {
    expected: field ?? '',
    actual,
    source: 'token of Intel Trust Authority',
  });
}

/** Every policy that was asked for has matched, by the token's own lists. */
function checkPolicies(
  token: JsonObject,
  { policyIds = [], allowUnmatchedPolicy = false }: TrustAuthorityConfig,
): Verdict {
  const idsOf = (name: string): string[] => {
    const list = token[name];
    return Array.isArray(list) ? list.map((entry: JsonValue) => String((entry as JsonObject | null)?.['id'])) : [];
  };
  const unmatched = idsOf('policy_ids_unmatched');
  const matched = idsOf('policy_ids_matched');
  const missing = policyIds.filter((id) => !matched.includes(id));
  const holds = allowUnmatchedPolicy || (unmatched.length === 0 && missing.length === 0);
  return check('policies of the account', holds, 'POLICY_DENY', {
    expected: `a match of ${policyIds.join(', ') || 'every policy'}`,
    actual: `no match of ${[...new Set([...unmatched, ...missing])].join(', ')}`,
    source: 'token of Intel Trust Authority',
  });
}

/** Members of the token itself, dates and names, are no claims about the machine. */
const tokenMembers = [
  'iss',
  'iat',
  'exp',
  'nbf',
  'jti',
  'aud',
  'sub',
  'attester_held_data',
  'attester_runtime_data',
  'verifier_nonce',
];

function claimsOf(token: JsonObject, reportData: string, initData: string): JsonObject {
  const own = Object.fromEntries(Object.entries(token).filter(([name]) => !tokenMembers.includes(name)));
  return {
    ...own,
    ...(token[reportData] === undefined ? {} : { report_data: token[reportData] }),
    ...(token[initData] === undefined ? {} : { init_data: token[initData] }),
    sealpod: { verified_by: 'Intel Trust Authority' },
  };
}
