import { timingSafeEqual } from 'node:crypto';
import { AttestationRefused, type EvidenceToEvaluate } from '@sealpod/attestation-service/service';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, canonicalJson, type JsonObject, parseJson } from '@sealpod/protocol/json';
import { type Attestation, isTee, parseAttestation } from '@sealpod/protocol/rcar';
import { decide } from '../audit/log.ts';
import type { Decision } from '../audit/record.ts';
import type { Parts } from '../parts.ts';
import type { Answer, Exchange } from '../server/exchange.ts';
import { asRefusal, Refusal, refusalTexts } from './refusal.ts';
import { type FoundSession, findSession, sessionCookie, sessionIdOf, spendSession } from './sessions.ts';
import { submodStatuses } from './submods.ts';

const bodyLimit = 2 * 1024 * 1024;
/** Additional devices a guest may present; each costs a verification. */
const mostDevices = 15;

function isSameText(left: string, right: string): boolean {
  const [a, b] = [Buffer.from(left), Buffer.from(right)];
  return a.length === b.length && timingSafeEqual(a, b);
}

/** The evidence of additional devices: the JSON text of a map TEE → evidence. */
function deviceEvidences(attestation: Attestation, bound: JsonObject): EvidenceToEvaluate[] {
  const text = attestation.teeEvidence.additionalEvidence;
  if (text === '') return [];
  const devices = asJsonObject(parseJson(text, { what: 'additional evidence' }), 'additional evidence');
  const names = Object.entries(devices);
  if (names.length > mostDevices) {
    throw new SealpodError('REQUEST_TOO_LARGE', 'too many additional devices', {
      expected: `at most ${mostDevices}`,
      actual: String(names.length),
    });
  }
  return names.map(([tee, evidence]) => {
    if (!isTee(tee)) throw new SealpodError('EV_TEE_UNSUPPORTED', 'the protocol knows no such device');
    return { tee, evidence, runtimeData: { structured: bound }, hashAlgorithm: 'sha384' };
  });
}

/** What the attestation service is to evaluate: the guest's primary evidence, bound to nonce, key and devices; then the devices. */
function evidencesOf(attestation: Attestation, tee: string): EvidenceToEvaluate[] {
  const { initData, runtimeData, teeEvidence } = attestation;
  if (initData !== undefined && initData.format !== 'toml') {
    throw new SealpodError('INITDATA_SCHEMA', 'the format of the initdata is not supported', { expected: 'toml' });
  }
  const bound: JsonObject = { nonce: runtimeData.nonce, 'tee-pubkey': { ...runtimeData.teePubKey } };
  const primary: EvidenceToEvaluate = {
    tee,
    evidence: teeEvidence.primaryEvidence,
    runtimeData: { structured: { ...bound, 'additional-evidence': teeEvidence.additionalEvidence } },
    // IBM Secure Execution has a field of 64 bytes, which upstream fills with SHA-512.
    hashAlgorithm: tee === 'se' ? 'sha512' : 'sha384',
    ...(initData === undefined ? {} : { initData: { toml: initData.body } }),
  };
  return [primary, ...deviceEvidences(attestation, bound)];
}

type Outcome =
  | { readonly token: string; readonly record: Partial<Decision> }
  | { readonly refused: SealpodError; readonly record: Partial<Decision> };

async function evaluate(parts: Parts, body: Buffer, found: FoundSession): Promise<Outcome> {
  const { session } = found;
  try {
    const attestation = parseAttestation(body, bodyLimit);
    if (!isSameText(attestation.runtimeData.nonce, session.nonce)) {
      throw new SealpodError('EV_NONCE_MISMATCH', 'the attestation answers another challenge');
    }
    const { correlationId, tee } = session;
    const evidences = evidencesOf(attestation, tee);
    const evaluation = await parts.attestation.evaluate({ evidences, policyIds: ['default'], correlationId });
    // The attestation service may be another process: its token must verify under the keys this broker trusts.
    const verified = await parts.tokens.verify(evaluation.token);
    if (canonicalJson({ ...verified.teePubKey }) !== canonicalJson({ ...attestation.runtimeData.teePubKey })) {
      throw new SealpodError('TOKEN_INVALID', 'the attestation service answered with the token of another key');
    }
    const { verdict, evidenceDigest, policyVersions, referenceValueVersions } = evaluation;
    const submods = submodStatuses(verified.claims);
    const record = { evidenceDigest, verdict, policyVersions, referenceValueVersions, subject: { tee, submods } };
    return { token: evaluation.token, record };
  } catch (thrown) {
    const refused = asSealpodError(thrown);
    if (refused instanceof AttestationRefused) {
      return { refused, record: { evidenceDigest: refused.evidenceDigest, verdict: refused.verdict } };
    }
    if (refused.code === 'INTERNAL') return { refused, record: {} };
    const { expected, actual, source } = refused.detail;
    const verdict = { check: refused.message, code: refused.code, expected, actual, source };
    return { refused, record: { verdict: JSON.parse(JSON.stringify(verdict)) } };
  }
}

/**
 * `POST /kbs/v0/attest`: evidence for the session's challenge, answered once. Whatever comes of it, the nonce is spent
 * in the same transaction that records the decision; no second answer, right or wrong, is looked at.
 */
export async function handleAttest(parts: Parts, exchange: Exchange): Promise<Answer> {
  const body = await exchange.body(bodyLimit);
  const id = sessionIdOf(exchange.headers.cookie);
  const found = await findSession(parts.storage, id);
  if (id === undefined || found?.session.state !== 'challenged') {
    throw new Refusal('SESSION_UNKNOWN', refusalTexts.attest);
  }
  const { session } = found;
  const outcome = await evaluate(parts, body, found);
  const accepted = 'token' in outcome;
  const { subject, ...record } = outcome.record;
  const decision: Decision = {
    correlationId: session.correlationId,
    time: new Date(parts.now()).toISOString(),
    kind: 'attest',
    outcome: accepted ? 'OK' : outcome.refused.code,
    subject: { tee: session.tee, session: found.key.slice(0, 16), remoteAddress: exchange.remoteAddress, ...subject },
    ...record,
  };
  try {
    await decide(parts.storage, async (transaction) => {
      await spendSession(transaction, found, accepted ? outcome.token : undefined);
      return { decision, result: undefined };
    });
  } catch (thrown) {
    throw asRefusal(thrown, refusalTexts.attest, session.correlationId);
  }
  parts.metrics.attested(session.tee, accepted ? 'success' : 'failure');
  if (!accepted) throw asRefusal(outcome.refused, refusalTexts.attest, session.correlationId);
  return {
    status: 200,
    correlationId: session.correlationId,
    contentType: 'application/json',
    body: JSON.stringify({ token: outcome.token }),
    headers: { 'set-cookie': sessionCookie(id, session.expiresAt, !parts.config.insecureHttp) },
    route: 'attest',
  };
}
