import { canonicalJson, type JsonObject, type JsonValue } from '@sealpod/protocol/json';
import type { EvidenceToEvaluate } from '../evidence.ts';

/**
 * What a policy gets as `input` and the token carries as annotated evidence (trustee: `<tee>`, `report_data`,
 * `runtime_data_claims`, `init_data`, `init_data_claims`; members sorted).
 *
 * @param initData claims of the initdata's text; undefined where only a digest or nothing is known
 */
export function annotatedEvidence(
  request: EvidenceToEvaluate,
  claims: JsonObject,
  initData: JsonObject | undefined,
): JsonObject {
  const { report_data: reportData, init_data: initDataDigest, ...own } = claims;
  const structured =
    request.runtimeData !== undefined && 'structured' in request.runtimeData ? request.runtimeData.structured : null;
  const evidence: Record<string, JsonValue> = { [request.tee]: own };
  if (reportData !== undefined) {
    evidence['report_data'] = reportData;
    evidence['runtime_data_claims'] = structured;
  }
  if (initDataDigest !== undefined) {
    evidence['init_data'] = initDataDigest;
    evidence['init_data_claims'] = initData ?? null;
  }
  return JSON.parse(canonicalJson(evidence)) as JsonObject;
}
