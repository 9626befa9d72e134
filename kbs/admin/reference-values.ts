import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, optionalMember, parseJson, stringMember } from '@sealpod/protocol/json';
import type { Answer } from '../server/exchange.ts';
import { jsonAnswer } from './answers.ts';
import { forwardRecorded } from './decisions.ts';
import { identityOf } from './identity.ts';
import type { AdminRequest } from './request.ts';

const absent = (id: string) => new SealpodError('NOT_FOUND', 'there is no such reference value', { actual: id });

/** `GET /admin/v1/reference-values` → `{"reference-values": [{id, value, version, updatedAt, expiresAt?, scope?, provenance?}]}`. */
export async function getReferenceValues({ parts, correlationId }: AdminRequest): Promise<Answer> {
  return jsonAnswer(correlationId, { 'reference-values': await parts.attestation.listReferenceValues() });
}

/** `GET /admin/v1/reference-values/{id}[?scope=POLICY]`; a slash in an id is sent percent-encoded. */
export async function getReferenceValue({ parts, correlationId, parameters, query }: AdminRequest): Promise<Answer> {
  const id = parameters['id'] ?? '';
  const stored = await parts.attestation.getReferenceValue(id, query['scope']);
  if (stored === undefined) throw absent(id);
  return jsonAnswer(correlationId, stored);
}

/** `PUT /admin/v1/reference-values/{id}[?scope=POLICY]` `{"value", "expiresAt"?}` → the stored value with its version. */
export async function putReferenceValue(request: AdminRequest): Promise<Answer> {
  const { parts, correlationId, administrator, remoteAddress, parameters, query } = request;
  const id = parameters['id'] ?? '';
  const root = asJsonObject(parseJson(await request.body(1024 * 1024), { what: 'reference value' }), 'reference value');
  const value = optionalMember(root, 'value');
  if (value === undefined) throw new SealpodError('REQUEST_FORMAT', 'the member value is missing');
  const expiresAt = optionalMember(root, 'expiresAt') === undefined ? undefined : stringMember(root, 'expiresAt');
  const deed = { correlationId, administrator, action: 'PUT reference value', target: id, remoteAddress };
  const stored = await forwardRecorded(
    parts,
    deed,
    () =>
      parts.attestation.setReferenceValue(id, value, {
        ...scoped(query),
        administrator: identityOf(administrator),
        ...(expiresAt === undefined ? {} : { expiresAt }),
      }),
    ({ version }) => ({ referenceValueVersions: { [id]: version } }),
  );
  return jsonAnswer(correlationId, stored);
}

/** `DELETE /admin/v1/reference-values/{id}[?scope=POLICY]` → 204. */
export async function deleteReferenceValue(request: AdminRequest): Promise<Answer> {
  const { parts, correlationId, administrator, remoteAddress, parameters, query } = request;
  const id = parameters['id'] ?? '';
  const deed = { correlationId, administrator, action: 'DELETE reference value', target: id, remoteAddress };
  await forwardRecorded(parts, deed, async () => {
    const options = { ...scoped(query), administrator: identityOf(administrator) };
    if (!(await parts.attestation.deleteReferenceValue(id, options))) throw absent(id);
  });
  return { status: 204, correlationId, route: 'admin' };
}

function scoped(query: AdminRequest['query']): { readonly scope?: string } {
  return query['scope'] === undefined ? {} : { scope: query['scope'] };
}
