import { type Initdata, initdataFiles } from '@sealpod/protocol/initdata';
import { type JsonObject, type JsonValue, parseJson } from '@sealpod/protocol/json';
import { parse } from 'smol-toml';

/**
 * The initdata as policies see it, as upstream shapes it: the file map, where `aa.toml` and `cdh.toml` are parsed if they
 * are TOML, and `policy.rego` becomes `agent_policy_claims` if it ends with a JSON document after `policy_data := `.
 */
export function initDataClaims({ data }: Initdata): JsonObject {
  const claims: Record<string, JsonValue> = { ...data };
  for (const name of [initdataFiles.attestationAgent, initdataFiles.dataHub]) {
    const parsed = data[name] === undefined ? undefined : tomlAsJson(data[name]);
    if (parsed !== undefined) claims[name] = parsed;
  }
  const policyData = policyDataOf(data[initdataFiles.agentPolicy] ?? '');
  if (policyData !== undefined) {
    delete claims[initdataFiles.agentPolicy];
    claims['agent_policy_claims'] = policyData;
  }
  return claims;
}

/** Undefined where the text is no TOML: it then stays text, which is upstream's behaviour and not an error. */
function tomlAsJson(text: string): JsonValue | undefined {
  try {
    return JSON.parse(JSON.stringify(parse(text, { maxDepth: 32 }))) as JsonValue;
  } catch {
    return undefined;
  }
}

const policyDataMarker = 'policy_data := {';

/** Undefined where there is no such tail, or it is no JSON: the policy then stays text, as upstream. */
function policyDataOf(policy: string): JsonValue | undefined {
  const at = policy.indexOf(policyDataMarker);
  if (at < 0) return undefined;
  try {
    return parseJson(policy.slice(at + policyDataMarker.length - 1), { what: 'policy data', maxSize: 4 * 1024 * 1024 });
  } catch {
    return undefined;
  }
}
