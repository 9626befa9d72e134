import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import type { EarVerification, RootConfiguration, Verification } from '../index.ts';

/** One call of the entry point, as JSON: bytes are hexadecimal, dates RFC 3339. */
export type Call = EvidenceCall | TokenCall;

export interface EvidenceCall {
  readonly tee: string;
  readonly evidence: JsonValue;
  readonly reportData?: string;
  readonly nonce?: string;
  readonly initDataDigest?: string;
  readonly trustedAttestationKeys?: readonly string[];
  readonly now: string;
  readonly snpRoot?: RootConfiguration;
  readonly revocationList?: string;
  readonly allowVersion2?: boolean;
  readonly tdxRoot?: RootConfiguration;
  readonly collateral?: JsonObject;
  readonly acceptExpiredCollateral?: boolean;
  readonly tpmRoots?: readonly RootConfiguration[];
  readonly challengeKey?: string;
}

export interface TokenCall {
  readonly token: string;
  readonly jwks: { readonly keys: readonly JsonObject[] };
  readonly issuer?: string;
  readonly audience?: string;
  readonly now: string;
}

/** A call, and the first reason code of its verdict. */
export interface NamedCall {
  readonly name: string;
  readonly call: Call;
  readonly code: string;
}

/** The entry point, as a module or as the global that a bundle sets. */
export interface EntryPoint {
  verifyEvidence(tee: string, evidence: JsonValue, expectations: object, options: object): Promise<Verification>;
  verifyEarToken(token: string, expectations: object): Promise<EarVerification>;
}

/**
 * Makes the calls and returns the results as JSON text. Its own text runs in a browser, so it uses nothing but its
 * parameters and the language.
 */
export async function drive(entryPoint: EntryPoint, calls: readonly Call[]): Promise<string> {
  const bytes = (hexadecimal: string): Uint8Array =>
    Uint8Array.from(hexadecimal.match(/../g) ?? [], (digits) => Number.parseInt(digits, 16));
  const results: unknown[] = [];
  for (const call of calls) {
    const now = new Date(call.now);
    if ('token' in call) {
      results.push(await entryPoint.verifyEarToken(call.token, { ...call, now }));
      continue;
    }
    const { reportData, initDataDigest, revocationList, challengeKey, snpRoot, tpmRoots, allowVersion2 } = call;
    const expectations = {
      now,
      ...(reportData === undefined ? {} : { reportData: bytes(reportData) }),
      ...(initDataDigest === undefined ? {} : { initDataDigest: bytes(initDataDigest) }),
      ...(call.nonce === undefined ? {} : { nonce: call.nonce }),
      ...(call.trustedAttestationKeys === undefined ? {} : { trustedAttestationKeys: call.trustedAttestationKeys }),
    };
    const options = {
      snp: {
        ...(snpRoot === undefined ? {} : { root: snpRoot }),
        ...(allowVersion2 === undefined ? {} : { allowVersion2 }),
        ...(revocationList === undefined ? {} : { revocationList: bytes(revocationList) }),
      },
      tdx: {
        ...(call.tdxRoot === undefined ? {} : { root: call.tdxRoot }),
        ...(call.collateral === undefined ? {} : { collateral: call.collateral }),
        ...(call.acceptExpiredCollateral === undefined
          ? {}
          : { acceptExpiredCollateral: call.acceptExpiredCollateral }),
      },
      tpm: {
        ...(tpmRoots === undefined ? {} : { roots: tpmRoots }),
        ...(challengeKey === undefined ? {} : { challengeKey: bytes(challengeKey) }),
      },
    };
    results.push(await entryPoint.verifyEvidence(call.tee, call.evidence, expectations, options));
  }
  return JSON.stringify(results);
}
