import type { TokenKeyAdministration } from '@sealpod/attestation-service/service';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Answer } from '../server/exchange.ts';
import { jsonAnswer } from './answers.ts';
import { forwardRecorded } from './decisions.ts';
import type { AdminRequest } from './request.ts';

function tokenKeysOf({ parts }: AdminRequest): TokenKeyAdministration {
  const keys = parts.attestation.tokenKeys;
  if (keys !== undefined) return keys;
  throw new SealpodError(
    'UNSUPPORTED',
    'the attestation service behind this key broker keeps its token keys to itself',
    {
      expected: 'attestationService.type builtin',
      actual: parts.config.attestationService.type,
      fix: 'rotate the key at the attestation service: POST /token-keys/rotate of its REST front',
    },
  );
}

/** `GET /admin/v1/token-keys` → `{"token-keys": [TokenKeyDescription]}`, oldest first. */
export async function getTokenKeys(request: AdminRequest): Promise<Answer> {
  return jsonAnswer(request.correlationId, { 'token-keys': await tokenKeysOf(request).list() });
}

/**
 * `POST /admin/v1/token-keys/rotate` → `{"rotated", "token-keys"}`: publishes a new key, which signs five minutes later.
 * `rotated` is false where one waits for that already.
 */
export async function rotateTokenKey(request: AdminRequest): Promise<Answer> {
  const { parts, correlationId, administrator, remoteAddress } = request;
  const tokenKeys = tokenKeysOf(request);
  const deed = { correlationId, administrator, action: 'ROTATE token key', target: 'token key', remoteAddress };
  const { rotated, keys } = await forwardRecorded(
    parts,
    deed,
    () => tokenKeys.rotate(),
    (done) => ({ target: done.keys.at(-1)?.kid ?? deed.target }),
  );
  return jsonAnswer(correlationId, { rotated, 'token-keys': keys });
}
