import type { LearnRequest, ReferenceValueWorkflow } from '@sealpod/attestation-service/service';
import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonObject, optionalMember, parseJson, stringMember } from '@sealpod/protocol/json';
import type { Answer } from '../server/exchange.ts';
import { jsonAnswer } from './answers.ts';
import { forwardRecorded } from './decisions.ts';
import { identityOf } from './identity.ts';
import type { AdminRequest } from './request.ts';

const bodyLimit = 2 * 1024 * 1024;

function workflowOf({ parts }: AdminRequest): ReferenceValueWorkflow {
  const workflow = parts.attestation.referenceValueWorkflow;
  if (workflow !== undefined) return workflow;
  throw new SealpodError('UNSUPPORTED', 'the attestation service behind this key broker has no candidates', {
    expected: 'attestationService.type builtin',
    actual: parts.config.attestationService.type,
  });
}

async function bodyOf(request: AdminRequest, known: readonly string[]): Promise<JsonObject> {
  const bytes = await request.body(bodyLimit);
  if (bytes.length === 0) return {};
  const root = asJsonObject(parseJson(bytes, { what: 'request', maxSize: bodyLimit }), 'request');
  const unknown = Object.keys(root).find((name) => !known.includes(name));
  if (unknown !== undefined)
    throw new SealpodError('REQUEST_FORMAT', 'the request has an unknown member', {
      expected: known.join(', '),
      actual: unknown,
    });
  return root;
}

function optionalText(root: JsonObject, name: string): string | undefined {
  return optionalMember(root, name) === undefined ? undefined : stringMember(root, name);
}

function learnRequestOf(root: JsonObject): LearnRequest {
  const values = optionalMember(root, 'values');
  const evidence = optionalMember(root, 'evidence');
  const [source, scope, expiresAt] = ['source', 'scope', 'expiresAt'].map((name) => optionalText(root, name));
  return {
    ...(values === undefined ? {} : { values: asJsonObject(values, 'values') }),
    ...(evidence === undefined ? {} : { evidence: evidenceOf(asJsonObject(evidence, 'evidence')) }),
    ...(source === undefined ? {} : { source }),
    ...(scope === undefined ? {} : { scope }),
    ...(expiresAt === undefined ? {} : { expiresAt }),
  };
}

function evidenceOf(root: JsonObject): NonNullable<LearnRequest['evidence']> {
  const correlationId = optionalText(root, 'correlationId');
  return correlationId === undefined ? { tee: stringMember(root, 'tee') } : { correlationId };
}

/** `GET /admin/v1/reference-value-candidates` → `{"candidates": [Candidate]}`, newest first. */
export async function getCandidates(request: AdminRequest): Promise<Answer> {
  return jsonAnswer(request.correlationId, { candidates: await workflowOf(request).list() });
}

/** `GET /admin/v1/reference-value-candidates/{id}` → `{candidate, differences, approvals: {have, need}}`. */
export async function getCandidate(request: AdminRequest): Promise<Answer> {
  return jsonAnswer(request.correlationId, await workflowOf(request).review(request.parameters['id'] ?? ''));
}

/**
 * `POST /admin/v1/reference-value-candidates` `{"values", "source"?}` or `{"evidence": {"correlationId"} | {"tee"}}`, with
 * `"scope"?` and `"expiresAt"?` → the quarantined candidate.
 */
export async function learnCandidate(request: AdminRequest): Promise<Answer> {
  const { parts, correlationId, administrator, remoteAddress } = request;
  const workflow = workflowOf(request);
  const learn = learnRequestOf(await bodyOf(request, ['values', 'source', 'evidence', 'scope', 'expiresAt']));
  const deed = { correlationId, administrator, action: 'LEARN reference values', target: 'candidate', remoteAddress };
  const candidate = await forwardRecorded(
    parts,
    deed,
    () => workflow.learn(learn, identityOf(administrator)),
    ({ id }) => ({ target: id }),
  );
  return jsonAnswer(correlationId, candidate);
}

/** `POST /admin/v1/reference-value-candidates/{id}/{approve|promote|retire}` → the candidate; promote takes `{"mode"?}`. */
export async function changeCandidate(request: AdminRequest): Promise<Answer> {
  const { parts, correlationId, administrator, remoteAddress, parameters } = request;
  const workflow = workflowOf(request);
  const { id = '', step = '' } = parameters;
  const by = identityOf(administrator);
  const root = await bodyOf(request, step === 'promote' ? ['mode'] : []);
  const steps: Readonly<Record<string, () => ReturnType<ReferenceValueWorkflow['approve']>>> = {
    approve: () => workflow.approve(id, by),
    promote: () => workflow.promote(id, by, modeOf(root)),
    retire: () => workflow.retire(id, by),
  };
  const forward = Object.hasOwn(steps, step) ? steps[step] : undefined;
  if (forward === undefined)
    throw new SealpodError('NOT_FOUND', 'there is no such step', {
      expected: Object.keys(steps).join(', '),
      actual: step.slice(0, 32),
    });
  const action = `${step.toUpperCase()} reference values`;
  const deed = { correlationId, administrator, action, target: id.slice(0, 64), remoteAddress };
  return jsonAnswer(correlationId, await forwardRecorded(parts, deed, forward));
}

function modeOf(root: JsonObject): 'add' | 'replace' {
  const mode = optionalText(root, 'mode') ?? 'add';
  if (mode === 'add' || mode === 'replace') return mode;
  throw new SealpodError('REQUEST_FORMAT', 'unknown mode of promotion', {
    expected: 'add or replace',
    actual: mode.slice(0, 32),
  });
}
