import { SealpodError } from '@sealpod/protocol/errors';
import type { WebhookConfig } from './config.ts';
import { mutatePod, type Pod } from './mutate.ts';
import { validatePod } from './validate.ts';

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
}

/** Answers a mutating review: pods of other RuntimeClasses are let through as they are. @throws SealpodError REQUEST_FORMAT */
export function reviewMutation(body: unknown, config: WebhookConfig): ReviewAnswer {
  const { uid, pod } = readRequest(body);
  const runtimeClass = config.runtimeClasses.get(pod.spec?.runtimeClassName ?? '');
  if (runtimeClass === undefined) return answer(uid, { allowed: true });
  const patch = mutatePod(pod, runtimeClass);
  if (patch.length === 0) return answer(uid, { allowed: true });
  const encoded = Buffer.from(JSON.stringify(patch)).toString('base64');
  return answer(uid, { allowed: true, patchType: 'JSONPatch', patch: encoded });
}

/** Answers a validating review. @throws SealpodError REQUEST_FORMAT */
export function reviewValidation(body: unknown, config: WebhookConfig): ReviewAnswer {
  const { uid, pod } = readRequest(body);
  const runtimeClass = config.runtimeClasses.get(pod.spec?.runtimeClassName ?? '');
  const denials = runtimeClass === undefined ? [] : validatePod(pod, runtimeClass);
  if (denials.length === 0) return answer(uid, { allowed: true });
  const message = denials.map(({ rule, field, message: text }) => `${rule}: ${text} (${field})`).join('; ');
  return answer(uid, { allowed: false, status: { code: 403, reason: 'Forbidden', message } });
}

function answer(uid: string, response: Omit<ReviewAnswer['response'], 'uid'>): ReviewAnswer {
  return { apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', response: { uid, ...response } };
}

function readRequest(body: unknown): Request {
  const review = body as {
    apiVersion?: unknown;
    kind?: unknown;
    request?: { uid?: unknown; object?: unknown; kind?: unknown };
  } | null;
  const { request } = review ?? {};
  const object = request?.object;
  const isReview = review?.kind === 'AdmissionReview' && review.apiVersion === 'admission.k8s.io/v1';
  if (isReview && typeof request?.uid === 'string' && typeof object === 'object' && object !== null) {
    const { kind } = (request.kind ?? {}) as { kind?: unknown };
    if (kind === 'Pod') return { uid: request.uid, pod: object };
  }
  throw new SealpodError('REQUEST_FORMAT', 'not a review of a pod', {
    expected: 'AdmissionReview of admission.k8s.io/v1 with a Pod',
  });
}
