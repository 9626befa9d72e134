import { SealpodError } from '@sealpod/protocol/errors';
import { readDecisions, readLatestDecisions } from '../audit/log.ts';
import { listPolicies } from '../policies/store.ts';
import { listResources } from '../resources/store.ts';
import type { Answer } from '../server/exchange.ts';
import { jsonAnswer } from './answers.ts';
import type { AdminRequest } from './request.ts';

const mostDecisions = 1000;
const startedAt = Date.now() - process.uptime() * 1000;

function recordsAnswer(correlationId: string, members: string, records: readonly string[]): Answer {
  // The records are JSON text already, and go out exactly as they were recorded.
  const body = `{${members}"decisions":[${records.join(',')}]}`;
  return { status: 200, correlationId, contentType: 'application/json', body, route: 'admin' };
}

/** `GET /admin/v1/decisions/{correlation-id}` → `{"correlation-id", "decisions": [Decision]}`, oldest first. */
export async function getDecisions({ parts, correlationId, parameters }: AdminRequest): Promise<Answer> {
  const wanted = parameters['correlationId'] ?? '';
  const records = await readDecisions(parts.storage, wanted);
  if (records.length === 0) {
    throw new SealpodError('NOT_FOUND', 'no decision has this correlation id', { actual: wanted.slice(0, 64) });
  }
  return recordsAnswer(correlationId, `"correlation-id":${JSON.stringify(wanted)},`, records);
}

/** `GET /admin/v1/decisions?limit=N` → `{"decisions": [Decision]}`, newest first; at most 1000, by default 50. */
export async function getLatestDecisions({ parts, correlationId, query }: AdminRequest): Promise<Answer> {
  const limit = Number(query['limit'] ?? 50);
  if (!Number.isInteger(limit) || limit < 1 || limit > mostDecisions) {
    throw new SealpodError('REQUEST_FORMAT', 'the limit is not acceptable', {
      expected: `1 to ${mostDecisions}`,
      actual: String(query['limit']),
    });
  }
  return recordsAnswer(correlationId, '', await readLatestDecisions(parts.storage, limit));
}

/** `GET /admin/v1/status`: what this key broker holds and how it is set up. */
export async function getStatus({ parts, correlationId }: AdminRequest): Promise<Answer> {
  const { config, storage, attestation, now } = parts;
  const [resources, resourcePolicies, attestationPolicies, referenceValues] = await Promise.all([
    listResources(storage),
    listPolicies(storage),
    attestation.listPolicies(),
    attestation.listReferenceValues(),
  ]);
  return jsonAnswer(correlationId, {
    startedAt: new Date(startedAt).toISOString(),
    uptimeSeconds: Math.round((now() - startedAt) / 1000),
    attestationService: config.attestationService.type,
    tls: !config.insecureHttp,
    sessionSeconds: config.limits.sessionSeconds,
    resources: resources.length,
    resourcePolicies: resourcePolicies.length,
    attestationPolicies: attestationPolicies.length,
    referenceValues: referenceValues.length,
  });
}
