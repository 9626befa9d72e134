import { SealpodError } from '@sealpod/protocol/errors';
import type { RuntimeClassConfig, WebhookConfig } from './config.ts';
import { mutatePod, type PatchOperation, type Pod } from './mutate.ts';
import { type Denial, validatePod, validateUpdate } from './validate.ts';

/** AdmissionReview of admission.k8s.io/v1, as it goes back. */
export interface ReviewAnswer {
  readonly apiVersion: 'admission.k8s.io/v1';
  readonly kind: 'AdmissionReview';
  readonly response: {
    readonly uid: string;
    readonly allowed: boolean;
    readonly patchType?: 'JSONPatch';
    /** base64 */
    readonly patch?: string;
    readonly status?: { readonly code: number; readonly reason: string; readonly message: string };
  };
}

interface Request {
  readonly uid: string;
  readonly pod: Pod;
  /** What the pod was before, where it is changed. */
  readonly before?: Pod;
}

/** Answers a mutating review: pods of other RuntimeClasses are let through as they are. @throws SealpodError REQUEST_FORMAT */
export function reviewMutation(body: unknown, config: WebhookConfig): ReviewAnswer {
  const { uid, pod } = readRequest(body);
  const runtimeClass = config.runtimeClasses.get(pod.spec?.runtimeClassName ?? '');
  if (runtimeClass === undefined) return answer(uid, { allowed: true });
  const patch = mutatePod(pod, runtimeClass);
  return patch.length === 0 ? answer(uid, { allowed: true }) : patched(uid, patch);
}

/**
 * Answers the mutating review of a pod in a confidential namespace: one that names no RuntimeClass gets the default one,
 * where there is a default. Then the API server asks again for what belongs to the class.
 *
 * @throws SealpodError REQUEST_FORMAT
 */
export function reviewRuntimeClass(body: unknown, { defaultRuntimeClass }: WebhookConfig): ReviewAnswer {
  const { uid, pod } = readRequest(body);
  if (defaultRuntimeClass === undefined || (pod.spec?.runtimeClassName ?? '') !== '')
    return answer(uid, { allowed: true });
  return patched(uid, [{ op: 'add', path: '/spec/runtimeClassName', value: defaultRuntimeClass }]);
}

/** Answers a validating review. @throws SealpodError REQUEST_FORMAT */
export function reviewValidation(body: unknown, config: WebhookConfig): ReviewAnswer {
  const { uid, pod, before } = readRequest(body);
  const runtimeClass = config.runtimeClasses.get(pod.spec?.runtimeClassName ?? '');
  const denials = runtimeClass === undefined ? [] : denialsOf(pod, before, runtimeClass);
  if (denials.length === 0) return answer(uid, { allowed: true });
  const message = denials.map(({ rule, field, message: text }) => `${rule}: ${text} (${field})`).join('; ');
  return answer(uid, { allowed: false, status: { code: 403, reason: 'Forbidden', message } });
}

function denialsOf(pod: Pod, before: Pod | undefined, config: RuntimeClassConfig): Denial[] {
  return before === undefined ? validatePod(pod, config) : validateUpdate(pod, before, config);
}

function patched(uid: string, patch: readonly PatchOperation[]): ReviewAnswer {
  const encoded = Buffer.from(JSON.stringify(patch)).toString('base64');
  return answer(uid, { allowed: true, patchType: 'JSONPatch', patch: encoded });
}

function answer(uid: string, response: Omit<ReviewAnswer['response'], 'uid'>): ReviewAnswer {
  return { apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', response: { uid, ...response } };
}

function readRequest(body: unknown): Request {
  const review = body as {
    apiVersion?: unknown;
    kind?: unknown;
    request?: { uid?: unknown; object?: unknown; oldObject?: unknown; operation?: unknown; kind?: unknown };
  } | null;
  const { request } = review ?? {};
  const object = request?.object;
  const isReview = review?.kind === 'AdmissionReview' && review.apiVersion === 'admission.k8s.io/v1';
  if (isReview && typeof request?.uid === 'string' && typeof object === 'object' && object !== null) {
    const { kind } = (request.kind ?? {}) as { kind?: unknown };
    const { oldObject, operation } = request;
    const isUpdate = operation === 'UPDATE' && typeof oldObject === 'object' && oldObject !== null;
    if (kind === 'Pod') return { uid: request.uid, pod: object, ...(isUpdate ? { before: oldObject } : {}) };
  }
  throw new SealpodError('REQUEST_FORMAT', 'not a review of a pod', {
    expected: 'AdmissionReview of admission.k8s.io/v1 with a Pod',
  });
}
