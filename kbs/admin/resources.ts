import { SealpodError } from '@sealpod/protocol/errors';
import { checkPolicyId, findPolicy } from '../policies/store.ts';
import { deleteResource, findResource, listResources, resourcePathOf, writeResource } from '../resources/store.ts';
import type { Answer } from '../server/exchange.ts';
import { jsonAnswer } from './answers.ts';
import { writeRecorded } from './decisions.ts';
import type { AdminRequest } from './request.ts';

function pathOf({ parameters }: AdminRequest): string {
  const { repository = '', type = '', tag = '' } = parameters;
  return resourcePathOf([repository, type, tag]);
}

const absent = (path: string) => new SealpodError('RES_NOT_FOUND', 'the resource does not exist', { actual: path });

/** `GET /admin/v1/resources` → `{"resources": [metadata]}`. */
export async function getResources({ parts, correlationId }: AdminRequest): Promise<Answer> {
  return jsonAnswer(correlationId, { resources: await listResources(parts.storage) });
}

/** `GET /admin/v1/resources/{repository}/{type}/{tag}` → metadata; never the secret. */
export async function getResourceByName(request: AdminRequest): Promise<Answer> {
  const path = pathOf(request);
  const resource = await findResource(request.parts.storage, path);
  if (resource === undefined) throw absent(path);
  return jsonAnswer(request.correlationId, resource);
}

/** `PUT /admin/v1/resources/{repository}/{type}/{tag}[?policy=<id>]`, raw bytes → metadata of the new version. */
export async function putResourceByName(request: AdminRequest): Promise<Answer> {
  const { parts, correlationId, administrator, remoteAddress, query } = request;
  const path = pathOf(request);
  const policy = query['policy'];
  if (policy !== undefined) checkPolicyId(policy);
  const { maxResourceBytes, keptVersions } = parts.config.limits;
  const bytes = await request.body(maxResourceBytes);
  const deed = { correlationId, administrator, action: 'PUT resource', target: path, remoteAddress };
  const options = { keptVersions, now: parts.now(), ...(policy === undefined ? {} : { policy }) };
  const resource = await writeRecorded(
    parts,
    deed,
    async (transaction) => {
      if (policy !== undefined && (await findPolicy(transaction, policy)) === undefined) {
        throw new SealpodError('POLICY_UNSET', 'there is no such resource policy', { actual: policy });
      }
      return writeResource(transaction, path, bytes, options);
    },
    ({ version }) => ({ resource: { path, version } }),
  );
  parts.metrics.resource('write');
  return jsonAnswer(correlationId, resource);
}

/** `DELETE /admin/v1/resources/{repository}/{type}/{tag}` → 204. */
export async function deleteResourceByName(request: AdminRequest): Promise<Answer> {
  const { parts, correlationId, administrator, remoteAddress } = request;
  const path = pathOf(request);
  const deed = { correlationId, administrator, action: 'DELETE resource', target: path, remoteAddress };
  await writeRecorded(parts, deed, async (transaction) => {
    if ((await deleteResource(transaction, path)) === undefined) throw absent(path);
  });
  parts.metrics.resource('delete');
  return { status: 204, correlationId, route: 'admin' };
}
