import { SealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  type JsonObject,
  type JsonValue,
  optionalMember,
  parseJson,
  stringMember,
} from '@sealpod/protocol/json';
import type { Parts } from '../parts.ts';
import {
  checkPolicyId,
  deletePolicy,
  findPolicy,
  largestPolicy,
  listPolicies,
  writePolicy,
} from '../policies/store.ts';
import type { Answer } from '../server/exchange.ts';
import { jsonAnswer } from './answers.ts';
import { forwardRecorded, writeRecorded } from './decisions.ts';
import type { AdminRequest } from './request.ts';

/** Which service a policy speaks to: the key broker (`allow`) or the attestation service (`trust_claims`). */
type PolicyKind = 'resource' | 'attestation';

const rules: Readonly<Record<PolicyKind, readonly string[]>> = {
  resource: ['data.policy.allow'],
  attestation: ['data.policy.trust_claims', 'data.policy.extensions'],
};

function kindOf(text: string | undefined): PolicyKind {
  if (text === 'resource' || text === 'attestation') return text;
  throw new SealpodError('NOT_FOUND', 'there is no such kind of policy', {
    expected: 'resource or attestation',
    actual: String(text),
  });
}

function namedPolicy({ parameters }: AdminRequest): { readonly kind: PolicyKind; readonly id: string } {
  const id = parameters['id'] ?? '';
  checkPolicyId(id);
  return { kind: kindOf(parameters['kind']), id };
}

const absent = (kind: string, id: string) =>
  new SealpodError('NOT_FOUND', 'there is no such policy', { actual: `${kind}/${id}` });

/** `GET /admin/v1/policies` → `{"policies": [{kind, id, sha256, updatedAt?}]}`; without `updatedAt` the text is built in. */
export async function getPolicies({ parts, correlationId }: AdminRequest): Promise<Answer> {
  const resource = (await listPolicies(parts.storage)).map((policy) => ({ kind: 'resource', ...policy }));
  const attestation = (await parts.attestation.listPolicies()).map((policy) => ({ kind: 'attestation', ...policy }));
  const policies = [...resource, ...attestation].map(({ policy: _text, ...rest }) => rest);
  return jsonAnswer(correlationId, { policies });
}

/** `GET /admin/v1/policies/{kind}/{id}` → `{kind, id, policy, sha256, updatedAt?}`. */
export async function getPolicyById(request: AdminRequest): Promise<Answer> {
  const { kind, id } = namedPolicy(request);
  const { storage, attestation } = request.parts;
  const policy = kind === 'resource' ? await findPolicy(storage, id) : await attestation.getPolicy(id);
  if (policy === undefined) throw absent(kind, id);
  return jsonAnswer(request.correlationId, { kind, ...policy });
}

/** `PUT /admin/v1/policies/{kind}/{id}`, Rego text → `{kind, id, sha256, updatedAt}`. Refused where it does not compile. */
export async function putPolicyById(request: AdminRequest): Promise<Answer> {
  const { parts, correlationId, administrator, remoteAddress } = request;
  const { kind, id } = namedPolicy(request);
  const bytes = await request.body(largestPolicy);
  let policy: string;
  try {
    policy = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new SealpodError('REQUEST_FORMAT', 'the policy is not UTF-8 text', { cause });
  }
  await parts.rego.check(policy);
  const deed = { correlationId, administrator, action: `PUT ${kind} policy`, target: id, remoteAddress };
  const details = ({ sha256 }: { readonly sha256: string }) => ({ policy: { id, sha256 } });
  const stored =
    kind === 'resource'
      ? await writeRecorded(parts, deed, (transaction) => writePolicy(transaction, id, policy, parts.now()), details)
      : await forwardRecorded(parts, deed, () => parts.attestation.setPolicy(id, policy), details);
  const { sha256, updatedAt } = stored;
  return jsonAnswer(correlationId, { kind, id, sha256, updatedAt });
}

/** `DELETE /admin/v1/policies/{kind}/{id}` → 204. Resources bound to the policy are refused from then on. */
export async function deletePolicyById(request: AdminRequest): Promise<Answer> {
  const { parts, correlationId, administrator, remoteAddress } = request;
  const { kind, id } = namedPolicy(request);
  const deed = { correlationId, administrator, action: `DELETE ${kind} policy`, target: id, remoteAddress };
  if (kind === 'resource') {
    await writeRecorded(parts, deed, async (transaction) => {
      if (!(await deletePolicy(transaction, id))) throw absent(kind, id);
    });
  } else {
    await forwardRecorded(parts, deed, async () => {
      if (!(await parts.attestation.deletePolicy(id))) throw absent(kind, id);
    });
  }
  return { status: 204, correlationId, route: 'admin' };
}

/**
 * `POST /admin/v1/policies/test` `{kind, policy, input? | evidence?, data?, referenceValues?}` → `{"values": {rule: value},
 * "prints": […], "referenceValueIds": […]}`; a rule without value is absent. Attestation policies see `referenceValues` where
 * they are given, else the registered ones; `evidence` `{"correlationId"} | {"tee"}` is evidence that was verified here lately.
 */
export async function testPolicy(request: AdminRequest): Promise<Answer> {
  const { parts, correlationId } = request;
  const root = asJsonObject(parseJson(await request.body(2 * 1024 * 1024), { what: 'policy test' }), 'policy test');
  const kind = kindOf(stringMember(root, 'kind'));
  const policy = stringMember(root, 'policy');
  const given = optionalMember(root, 'evidence');
  const input = given === undefined ? (optionalMember(root, 'input') ?? {}) : await seenInput(parts, given);
  const data = optionalMember(root, 'data') ?? {};
  const evaluation = { policy, rules: rules[kind], input, data, gatherPrints: true };
  const { values, prints, referenceValueIds } = await parts.rego.evaluate(
    kind === 'attestation'
      ? { ...evaluation, functions: { query_reference_value: await referenceValuesFor(parts, root) } }
      : evaluation,
  );
  return jsonAnswer(correlationId, { values, prints, referenceValueIds });
}

async function referenceValuesFor(parts: Parts, root: JsonObject): Promise<JsonObject> {
  const given = optionalMember(root, 'referenceValues');
  if (given !== undefined) return asJsonObject(given, 'referenceValues');
  const known = await parts.attestation.listReferenceValues();
  const usable = known.filter(
    ({ scope, expiresAt }) => scope === undefined && (expiresAt === undefined || Date.parse(expiresAt) > parts.now()),
  );
  return Object.fromEntries(usable.map(({ id, value }) => [id, value]));
}

async function seenInput({ attestation }: Parts, wanted: JsonValue): Promise<JsonObject> {
  const { correlationId, tee } = asJsonObject(wanted, 'evidence');
  if (attestation.recentClaims === undefined)
    throw new SealpodError('UNSUPPORTED', 'the attestation service behind this key broker tells of no evidence', {
      fix: 'give the input itself',
    });
  const all = await attestation.recentClaims();
  const found = all.find((seen) =>
    correlationId === undefined ? seen.tee === tee : seen.correlationId === correlationId,
  );
  if (found !== undefined) return found.input;
  throw new SealpodError('NOT_FOUND', 'no such evidence has been verified here', {
    expected: `one of: ${all.map((seen) => `${seen.tee} ${seen.correlationId}`).join(', ') || 'none yet'}`,
    actual: String(correlationId ?? tee).slice(0, 64),
  });
}

/** `POST /admin/v1/policies/check` `{id, policy}` → what an upload of an attestation policy would check, without storing it. */
export async function checkPolicyText(request: AdminRequest): Promise<Answer> {
  const { parts, correlationId } = request;
  const root = asJsonObject(parseJson(await request.body(2 * 1024 * 1024), { what: 'policy check' }), 'policy check');
  if (parts.attestation.checkPolicy === undefined)
    throw new SealpodError(
      'UNSUPPORTED',
      'the attestation service behind this key broker checks policies when they are stored',
    );
  const checked = await parts.attestation.checkPolicy(stringMember(root, 'id'), stringMember(root, 'policy'));
  return jsonAnswer(correlationId, checked);
}
