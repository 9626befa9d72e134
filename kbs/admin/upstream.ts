import { randomUUID } from 'node:crypto';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, decodeBase64Url, optionalMember, parseJson, stringMember } from '@sealpod/protocol/json';
import type { Parts } from '../parts.ts';
import { defaultPolicyId } from '../policies/default-policy.ts';
import { largestPolicy, listPolicies, writePolicy } from '../policies/store.ts';
import { asRefusal, Refusal, refusalTexts } from '../rcar/refusal.ts';
import { deleteResource, resourcePathOf, writeResource } from '../resources/store.ts';
import type { Answer, Exchange } from '../server/exchange.ts';
import type { Administrator } from './authenticator.ts';
import { forwardRecorded, writeRecorded } from './decisions.ts';
import { identityOf } from './identity.ts';
import type { AdminAction } from './roles.ts';

const bodyLimit = 2 * 1024 * 1024;

/** Who may act on an endpoint of upstream. The path that is decided on, and named, is the decoded one. */
async function authorize(parts: Parts, exchange: Exchange, action: AdminAction): Promise<Administrator> {
  const path = `/kbs/v0/${exchange.segments.join('/')}`;
  try {
    return await parts.authenticator.authorize(exchange.headers.authorization, action, path);
  } catch (thrown) {
    if (!(thrown instanceof SealpodError)) throw thrown;
    // Upstream labels the same refusal differently on plugin paths.
    const [first = ''] = exchange.segments;
    if (first === 'resource') {
      const detail = `failed to initialize [admin] configuration: ${thrown.message}`;
      throw new Refusal(thrown.code, { variant: 'AdminAuthInitialization', detail }, { cause: thrown });
    }
    const detail = `admin access denied for endpoint ${first}: ${thrown.message}`;
    throw new Refusal(thrown.code, { variant: 'AdminAuthAccess', detail }, { cause: thrown });
  }
}

function deedOf(exchange: Exchange, administrator: Administrator, action: string, target: string) {
  return { correlationId: randomUUID(), administrator, action, target, remoteAddress: exchange.remoteAddress };
}

function parsePolicyRefusal(detail: string, cause?: unknown): Refusal {
  return new Refusal(
    'REQUEST_FORMAT',
    { variant: 'ParsePolicyError', detail: `Failed to parse policy: ${detail}` },
    { cause },
  );
}

/** The policy text of upstream's `{"policy": base64url}`, with upstream's words for what is wrong with it. */
function policyTextOf(body: Buffer): string {
  let root: ReturnType<typeof asJsonObject>;
  try {
    root = asJsonObject(parseJson(body, { what: 'SetPolicy request' }), 'SetPolicy request');
  } catch (cause) {
    throw parsePolicyRefusal('Illegal SetPolicy Request Json', cause);
  }
  const policy = optionalMember(root, 'policy');
  if (policy === undefined) throw parsePolicyRefusal('No `policy` field inside SetPolicy Request Json');
  if (typeof policy !== 'string') throw parsePolicyRefusal('`policy` field is not a string in SetPolicy Request Json');
  try {
    return decodePolicy(policy);
  } catch (cause) {
    throw parsePolicyRefusal(`Failed to decode policy: ${asSealpodError(cause).message}`, cause);
  }
}

/** What is wrong with text that is not unpadded base64url, in the words of upstream's decoder. */
function base64Fault(text: string): string {
  const offset = text.search(/[^A-Za-z0-9_-]/);
  if (offset < 0 || /^=+$/.test(text.slice(offset))) return 'Invalid padding';
  return `Invalid symbol ${text.charCodeAt(offset)}, offset ${offset}.`;
}

function decodePolicy(text: string): string {
  let bytes: Buffer;
  try {
    bytes = decodeBase64Url(text, { what: 'policy', maxBytes: largestPolicy });
  } catch (cause) {
    const { code } = asSealpodError(cause);
    if (code === 'REQUEST_TOO_LARGE') throw cause;
    throw new SealpodError('REQUEST_FORMAT', base64Fault(text), { cause });
  }
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new SealpodError('REQUEST_FORMAT', 'invalid utf-8 sequence', { cause });
  }
}

/** `POST /kbs/v0/resource-policy`: the policy that decides on every resource that is bound to no other. */
export async function handlePostResourcePolicy(parts: Parts, exchange: Exchange): Promise<Answer> {
  const administrator = await authorize(parts, exchange, 'policy:write');
  const policy = policyTextOf(await exchange.body(bodyLimit));
  try {
    await parts.rego.check(policy);
  } catch (cause) {
    const fault = asSealpodError(cause).message.replaceAll('policy.rego:', ':');
    const detail = `Policy engine error: Failed to load policy: \n${fault}`;
    throw new Refusal('POLICY_INVALID', { variant: 'PolicyEngineError', detail }, { cause });
  }
  const deed = deedOf(exchange, administrator, 'POST resource-policy', defaultPolicyId);
  await writeRecorded(
    parts,
    deed,
    (transaction) => writePolicy(transaction, defaultPolicyId, policy, parts.now()),
    ({ id, sha256 }) => ({ policy: { id, sha256 } }),
  );
  return { status: 200, correlationId: deed.correlationId, route: 'resource-policy' };
}

/** `GET /kbs/v0/resource-policy`: the ids of all resource policies. */
export async function handleGetResourcePolicy(parts: Parts, exchange: Exchange): Promise<Answer> {
  await authorize(parts, exchange, 'policy:read');
  const ids = (await listPolicies(parts.storage)).map((policy) => policy.id);
  const body = JSON.stringify(ids);
  return { status: 200, correlationId: randomUUID(), contentType: 'application/json', body, route: 'resource-policy' };
}

/** `POST /kbs/v0/attestation-policy`. */
export async function handlePostAttestationPolicy(parts: Parts, exchange: Exchange): Promise<Answer> {
  const administrator = await authorize(parts, exchange, 'policy:write');
  const body = await exchange.body(bodyLimit);
  try {
    const root = asJsonObject(parseJson(body, { what: 'SetPolicy request' }), 'SetPolicy request');
    const id = stringMember(root, 'policy_id');
    const policy = decodePolicy(stringMember(root, 'policy'));
    const deed = deedOf(exchange, administrator, 'POST attestation-policy', id.slice(0, 256));
    await forwardRecorded(
      parts,
      deed,
      () => parts.attestation.setPolicy(id, policy),
      (stored) => ({ policy: { id, sha256: stored.sha256 } }),
    );
    return { status: 200, correlationId: deed.correlationId, route: 'attestation-policy' };
  } catch (thrown) {
    const detail = 'Attestation error: Set Attestation Policy failed';
    throw asRefusal(thrown, { variant: 'AttestationError', detail });
  }
}

function rvpsRefusal(thrown: unknown, detail: string): Refusal {
  return asRefusal(thrown, { variant: 'RvpsError', detail: `RVPS configuration failed: ${detail}` });
}

/** `POST /kbs/v0/reference-value`: an RVPS message. */
export async function handlePostReferenceValue(parts: Parts, exchange: Exchange): Promise<Answer> {
  const administrator = await authorize(parts, exchange, 'reference-value:write');
  const body = await exchange.body(bodyLimit);
  let message: string;
  try {
    message = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(body);
  } catch (cause) {
    throw rvpsRefusal(
      new SealpodError('REQUEST_FORMAT', 'not UTF-8', { cause }),
      'Failed to parse reference value message',
    );
  }
  const deed = deedOf(exchange, administrator, 'POST reference-value', 'RVPS message');
  try {
    await forwardRecorded(parts, deed, () =>
      parts.attestation.registerReferenceValues(message, identityOf(administrator)),
    );
  } catch (thrown) {
    throw rvpsRefusal(thrown, 'Failed to register reference value: register reference value');
  }
  return { status: 200, correlationId: deed.correlationId, contentType: 'application/json', route: 'reference-value' };
}

/** `GET /kbs/v0/reference-value/{id…}`: the bare JSON value. */
export async function handleGetReferenceValue(parts: Parts, exchange: Exchange): Promise<Answer> {
  await authorize(parts, exchange, 'reference-value:read');
  const id = exchange.segments.slice(1).join('/');
  const failed = 'Failed to get reference_values:';
  const stored = await parts.attestation.getReferenceValue(id).catch((thrown: unknown) => {
    throw rvpsRefusal(thrown, `${failed} query reference values`);
  });
  if (stored === undefined) {
    const absent = new SealpodError('NOT_FOUND', 'no such reference value');
    // Upstream cannot look up the empty name at all, and says so.
    const detail =
      id === '' ? `${failed} query reference values` : `${failed} No reference value found for the given id: ${id}`;
    throw rvpsRefusal(absent, detail);
  }
  const body = JSON.stringify(stored.value);
  return { status: 200, correlationId: randomUUID(), contentType: 'application/json', body, route: 'reference-value' };
}

/** `POST /kbs/v0/resource/{repository}/{type}/{tag}`: stores a secret; its binding to a policy stays as it was. */
export async function handlePostResource(parts: Parts, exchange: Exchange): Promise<Answer> {
  const administrator = await authorize(parts, exchange, 'resource:write');
  const bytes = await exchange.body(Math.min(bodyLimit, parts.config.limits.maxResourceBytes));
  const path = pluginPath(exchange);
  const deed = deedOf(exchange, administrator, 'POST resource', path);
  const options = { keptVersions: parts.config.limits.keptVersions, now: parts.now() };
  await writeRecorded(
    parts,
    deed,
    (transaction) => writeResource(transaction, path, bytes, options),
    ({ version }) => ({ resource: { path, version } }),
  ).catch(refusePlugin);
  parts.metrics.resource('write');
  return { status: 200, correlationId: deed.correlationId, contentType: 'text/xml', route: 'resource' };
}

/** `DELETE /kbs/v0/resource/{repository}/{type}/{tag}`. */
export async function handleDeleteResource(parts: Parts, exchange: Exchange): Promise<Answer> {
  const administrator = await authorize(parts, exchange, 'resource:write');
  const path = pluginPath(exchange);
  const deed = deedOf(exchange, administrator, 'DELETE resource', path);
  await writeRecorded(parts, deed, async (transaction) => {
    const deleted = await deleteResource(transaction, path);
    if (deleted === undefined) throw new Refusal('RES_NOT_FOUND', refusalTexts.plugin);
    return deleted;
  }).catch(refusePlugin);
  parts.metrics.resource('delete');
  return { status: 200, correlationId: deed.correlationId, contentType: 'text/xml', route: 'resource' };
}

function pluginPath(exchange: Exchange): string {
  try {
    return resourcePathOf(exchange.segments.slice(1));
  } catch (thrown) {
    throw asRefusal(thrown, refusalTexts.plugin);
  }
}

function refusePlugin(thrown: unknown): never {
  throw asRefusal(thrown, refusalTexts.plugin);
}
