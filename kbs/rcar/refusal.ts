import { SealpodError } from '@sealpod/protocol/errors';
import { serializeErrorInformation } from '@sealpod/protocol/rcar';
import type { ReasonCode } from '@sealpod/protocol/reason-codes';
import type { Answer } from '../server/exchange.ts';

/** Upstream's error variants that this key broker answers with (trustee, `kbs/src/error.rs`). */
export type ErrorVariant =
  | 'AdminAuthAccess'
  | 'AdminAuthInitialization'
  | 'AttestationError'
  | 'JweError'
  | 'ParsePolicyError'
  | 'PluginInternalError'
  | 'PluginNotFound'
  | 'PolicyDeny'
  | 'PolicyEngineError'
  | 'RvpsError'
  | 'TokenNotFound'
  | 'TokenVerifierError';

/** Failures of the key broker, not of its client: attesting again would not help. */
const brokersOwn: readonly ReasonCode[] = ['STORAGE', 'AUDIT_APPEND_FAILED', 'INTERNAL'];
const typePrefix = 'https://github.com/confidential-containers/kbs/errors/';

/** What a refused guest or upstream administrator client is told: variant and text of upstream, code, correlation id. */
export interface RefusalText {
  readonly variant: ErrorVariant;
  readonly detail: string;
  /** 401 where nothing else is given, as upstream; clients stop and do not attest again on 404. */
  readonly status?: number;
}

/** A refusal on the wire of RCAR. The message and cause are for the log; the guest gets `text` and the code. */
export class Refusal extends SealpodError {
  readonly text: RefusalText;
  /** Of the session it belongs to, where there is one. */
  readonly correlationId: string | undefined;

  constructor(
    code: ReasonCode,
    text: RefusalText,
    options: { cause?: unknown; correlationId?: string | undefined } = {},
  ) {
    super(code, text.detail, { cause: options.cause });
    this.text = text;
    this.correlationId = options.correlationId;
  }
}

const texts = {
  attest: { variant: 'AttestationError', detail: 'Attestation error: RCAR handshake Attest failed' },
  tokenMissing: { variant: 'TokenNotFound', detail: 'Attestation Token not found' },
  token: { variant: 'TokenVerifierError', detail: 'Token Verifier error' },
  deny: { variant: 'PolicyDeny', detail: 'Access denied by policy' },
  policy: { variant: 'PolicyEngineError', detail: 'Policy engine error: Failed to eval policy' },
  plugin: { variant: 'PluginInternalError', detail: 'Plugin internal error' },
  notFound: { variant: 'PluginInternalError', detail: 'Plugin internal error', status: 404 },
  broken: { variant: 'PluginInternalError', detail: 'Plugin internal error', status: 500 },
  jwe: { variant: 'JweError', detail: 'JWE failed' },
} as const satisfies Record<string, RefusalText>;

export const refusalTexts: Readonly<Record<keyof typeof texts, RefusalText>> = texts;

/** The refusal that `thrown` is, or one with the text `otherwise` and the code of what was thrown. */
export function asRefusal(thrown: unknown, otherwise: RefusalText, correlationId?: string): Refusal {
  if (thrown instanceof Refusal) return thrown;
  const code = thrown instanceof SealpodError ? thrown.code : 'INTERNAL';
  const text = brokersOwn.includes(code) ? { ...otherwise, status: 500 } : otherwise;
  return new Refusal(code, text, { cause: thrown, correlationId });
}

/** The answer a refused client gets. Upstream sends no content type with it. */
export function refusalAnswer(refusal: Refusal, correlationId: string, route: string): Answer {
  const { variant, detail, status = 401 } = refusal.text;
  const body = serializeErrorInformation({
    type: `${typePrefix}${variant}`,
    detail,
    code: refusal.code,
    correlationId,
  });
  return { status, correlationId, body, code: refusal.code, route };
}
