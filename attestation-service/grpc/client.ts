import { createHash } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import {
  type CallOptions,
  type Client,
  credentials,
  Metadata,
  makeClientConstructor,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { parseEarClaims } from '@sealpod/protocol/ear';
import { SealpodError } from '@sealpod/protocol/errors';
import {
  AttestationRequestSchema,
  type AttestationResponse,
  AttestationService as AttestationServiceDescription,
  ChallengeRequestSchema,
  type ChallengeResponse,
  SetPolicyRequestSchema,
} from '@sealpod/protocol/gen/coco/attestation_pb';
import {
  ReferenceValueDeleteRequestSchema,
  type ReferenceValueDeleteResponse,
  ReferenceValueListRequestSchema,
  type ReferenceValueListResponse,
  ReferenceValueProviderService,
  ReferenceValueQueryRequestSchema,
  type ReferenceValueQueryResponse,
  ReferenceValueRegisterRequestSchema,
} from '@sealpod/protocol/gen/coco/reference_pb';
import { toGrpcServiceDefinition } from '@sealpod/protocol/grpc';
import {
  asJsonObject,
  canonicalJson,
  decodeBase64Url,
  type JsonObject,
  type JsonValue,
  parseJson,
} from '@sealpod/protocol/json';
import { policyDigest } from '../policy/record.ts';
import {
  AttestationRefused,
  type AttestationService,
  type EvaluateRequest,
  type Evaluation,
  type ReferenceValueOptions,
  type StoredPolicy,
  type StoredReferenceValue,
} from '../service.ts';
import { toWire } from './requests.ts';
import { correlationIdHeader, type Explanation, explanationOf, reasonCodeOf } from './side-channel.ts';

export interface GrpcClientOptions {
  /** `host:port`. */
  readonly address: string;
  /** PEM. Without it the connection is in the clear, for loopback addresses. */
  readonly tls?: {
    /** What the service's certificate must chain to. */
    readonly certificates: string;
    /** This client's own certificate and key. */
    readonly client?: { readonly certificate: string; readonly key: string };
  };
  /** The service's shared secret, for policies, reference values and explanations. */
  readonly adminSecret?: string;
  /** How to get the service's published keys. Without it `jwks` answers UNSUPPORTED: `attestation.proto` has no such call. */
  readonly jwks?: () => Promise<{ readonly keys: readonly JsonObject[] }>;
  /** Milliseconds for a call; 10 000 by default. */
  readonly timeoutMs?: number;
}

/**
 * The attestation service behind `attestation.proto`, ours or upstream's.
 *
 * The wire carries neither the verdict tree nor versions. Our own service sends them beside the answer to an
 * administrator ({@link GrpcClientOptions.adminSecret} or a client certificate); from any other the verdict says only
 * what the token says, and versions are empty. Listing and deleting are not on the wire: UNSUPPORTED.
 */
export function connectAttestationService(options: GrpcClientOptions): AttestationService {
  return new GrpcAttestationService(options);
}

interface Reply<Message> {
  readonly message: Message;
  readonly trailer: Metadata;
}

const unsupported = (what: string): SealpodError =>
  new SealpodError('UNSUPPORTED', `${what} is not part of attestation.proto`, {
    fix: 'ask the attestation service itself',
  });

class GrpcAttestationService implements AttestationService {
  readonly #options: GrpcClientOptions;
  readonly #attestation: Client;
  readonly #referenceValues: Client;

  constructor(options: GrpcClientOptions) {
    const { address, tls } = options;
    this.#options = options;
    const channel =
      tls === undefined
        ? credentials.createInsecure()
        : credentials.createSsl(
            Buffer.from(tls.certificates),
            tls.client === undefined ? null : Buffer.from(tls.client.key),
            tls.client === undefined ? null : Buffer.from(tls.client.certificate),
          );
    const limits = {
      'grpc.max_receive_message_length': 8 * 1024 * 1024,
      'grpc.max_send_message_length': 8 * 1024 * 1024,
    };
    const connect = (service: typeof AttestationServiceDescription | typeof ReferenceValueProviderService): Client => {
      const Constructor = makeClientConstructor(toGrpcServiceDefinition(service), service.name);
      return new Constructor(address, channel, limits);
    };
    this.#attestation = connect(AttestationServiceDescription);
    this.#referenceValues = connect(ReferenceValueProviderService);
  }

  async evaluate({ evidences, policyIds, correlationId }: EvaluateRequest): Promise<Evaluation> {
    const evidenceDigest = createHash('sha256')
      .update(canonicalJson(evidences.map(({ tee, evidence }) => ({ tee, evidence }))))
      .digest('hex');
    const request = create(AttestationRequestSchema, {
      verificationRequests: evidences.map(toWire),
      policyIds: [...policyIds],
    });
    const { message, trailer } = await this.#call<AttestationResponse>(
      this.#attestation,
      'attestationEvaluate',
      request,
      correlationId,
    ).catch((error: unknown) => {
      throw error instanceof RefusedCall ? error.asRefusal(evidenceDigest) : error;
    });
    const token = message.attestationToken;
    const payload = parseJson(
      decodeBase64Url(token.split('.')[1] ?? '', { what: 'token payload', code: 'TOKEN_INVALID' }),
      { what: 'token payload', code: 'TOKEN_INVALID' },
    );
    const claims = parseEarClaims(asJsonObject(payload, 'token payload', 'TOKEN_INVALID'));
    const explanation: Explanation = explanationOf(trailer) ?? {
      verdict: verdictOfToken(claims.submods),
      evidenceDigest,
    };
    return {
      token,
      claims,
      verdict: explanation.verdict,
      evidenceDigest: explanation.evidenceDigest,
      policyVersions: explanation.policyVersions ?? {},
      referenceValueVersions: explanation.referenceValueVersions ?? {},
    };
  }

  async challenge(inner: Readonly<Record<string, string>>): Promise<string> {
    const request = create(ChallengeRequestSchema, { inner: { ...inner } });
    const { message } = await this.#call<ChallengeResponse>(this.#attestation, 'getAttestationChallenge', request);
    return message.attestationChallenge;
  }

  async setPolicy(id: string, policy: string): Promise<StoredPolicy> {
    const request = create(SetPolicyRequestSchema, { policyId: id, policy: Buffer.from(policy).toString('base64url') });
    await this.#call(this.#attestation, 'setAttestationPolicy', request);
    return { id, policy, sha256: policyDigest(policy), updatedAt: new Date().toISOString() };
  }

  async getPolicy(): Promise<StoredPolicy | undefined> {
    throw unsupported('reading a policy');
  }

  async listPolicies(): Promise<StoredPolicy[]> {
    throw unsupported('listing policies');
  }

  async deletePolicy(): Promise<boolean> {
    throw unsupported('deleting a policy');
  }

  async setReferenceValue(
    id: string,
    value: JsonValue,
    { expiresAt, scope }: ReferenceValueOptions = {},
  ): Promise<StoredReferenceValue> {
    if (expiresAt !== undefined) throw unsupported('an expiry of its own for a reference value');
    if (scope !== undefined) throw unsupported('a scope of a reference value');
    const payload = Buffer.from(JSON.stringify({ [id]: value })).toString('base64');
    await this.registerReferenceValues(JSON.stringify({ version: '0.1.0', type: 'sample', payload }));
    return { id, value, version: 0, updatedAt: new Date().toISOString() };
  }

  /** The value alone: version 0 and the epoch stand for what the wire does not carry. */
  async getReferenceValue(id: string): Promise<StoredReferenceValue | undefined> {
    const request = create(ReferenceValueQueryRequestSchema, { referenceValueId: id });
    const { message } = await this.#call<ReferenceValueQueryResponse>(
      this.#referenceValues,
      'queryReferenceValue',
      request,
    );
    const text = message.referenceValueResults;
    if (text === undefined) return undefined;
    return {
      id,
      value: parseJson(text, { what: 'reference value' }),
      version: 0,
      updatedAt: new Date(0).toISOString(),
    };
  }

  /** Ours only: upstream's service has no such call, which is UNSUPPORTED. */
  async listReferenceValues(): Promise<StoredReferenceValue[]> {
    const { message } = await this.#call<ReferenceValueListResponse>(
      this.#referenceValues,
      'listReferenceValues',
      create(ReferenceValueListRequestSchema),
    );
    return parseJson(message.referenceValues, {
      what: 'reference values',
      maxSize: 8 * 1024 * 1024,
    }) as unknown as StoredReferenceValue[];
  }

  /** Ours only, as listing. */
  async deleteReferenceValue(id: string, { scope }: ReferenceValueOptions = {}): Promise<boolean> {
    if (scope !== undefined) throw unsupported('a scope of a reference value');
    const { message } = await this.#call<ReferenceValueDeleteResponse>(
      this.#referenceValues,
      'deleteReferenceValue',
      create(ReferenceValueDeleteRequestSchema, { referenceValueId: id }),
    );
    return message.deleted;
  }

  async registerReferenceValues(message: string): Promise<void> {
    await this.#call(
      this.#referenceValues,
      'registerReferenceValue',
      create(ReferenceValueRegisterRequestSchema, { message }),
    );
  }

  jwks(): Promise<{ readonly keys: readonly JsonObject[] }> {
    return this.#options.jwks?.() ?? Promise.reject(unsupported('the key set'));
  }

  async close(): Promise<void> {
    this.#attestation.close();
    this.#referenceValues.close();
  }

  #call<Message>(client: Client, method: string, request: unknown, correlationId?: string): Promise<Reply<Message>> {
    const { adminSecret, timeoutMs = 10_000 } = this.#options;
    const metadata = new Metadata();
    if (adminSecret !== undefined) metadata.set('authorization', `Bearer ${adminSecret}`);
    if (correlationId !== undefined) metadata.set(correlationIdHeader, correlationId);
    type Method = (
      request: unknown,
      metadata: Metadata,
      options: CallOptions,
      callback: (error: ServiceError | null, message: Message) => void,
    ) => { on(event: 'status', listener: (status: { metadata: Metadata }) => void): void };
    const invoke = (client as unknown as Record<string, Method>)[method];
    if (invoke === undefined) return Promise.reject(new SealpodError('INTERNAL', `no method ${method}`));
    return new Promise((resolve, reject) => {
      let received: Message | undefined;
      const call = invoke.call(client, request, metadata, { deadline: Date.now() + timeoutMs }, (error, message) => {
        if (error !== null) reject(new RefusedCall(error));
        else received = message;
      });
      // The trailer comes with the status, after the message.
      call.on('status', ({ metadata: trailer }) => {
        if (received !== undefined) resolve({ message: received, trailer });
      });
    });
  }
}

/** A call that the service answered with an error, or did not answer. */
class RefusedCall extends SealpodError {
  readonly explanation: Explanation | undefined;

  constructor(error: ServiceError) {
    const reached = error.code !== status.UNAVAILABLE && error.code !== status.DEADLINE_EXCEEDED;
    super(
      reasonCodeOf(error.metadata) ??
        (error.code === status.UNIMPLEMENTED ? 'UNSUPPORTED' : reached ? 'EV_FORMAT' : 'NETWORK'),
      `attestation service: ${error.details}`,
      { cause: error },
    );
    this.explanation = explanationOf(error.metadata);
  }

  /** A refusal with its verdict tree where the service sent one. */
  asRefusal(evidenceDigest: string): SealpodError {
    if (this.explanation !== undefined)
      return new AttestationRefused(this.explanation.verdict, this.explanation.evidenceDigest);
    if (!this.code.startsWith('EV_') && this.code !== 'INITDATA_DIGEST') return this;
    return new AttestationRefused(
      { check: 'attestation', code: this.code, actual: this.message, source: 'attestation service' },
      evidenceDigest,
    );
  }
}

function verdictOfToken(submods: Evaluation['claims']['submods']): Evaluation['verdict'] {
  const children = Object.entries(submods).map(([name, appraisal]) => {
    const actual = appraisal['ear.status'];
    return actual === 'affirming'
      ? ({ check: name, code: 'OK' } as const)
      : ({
          check: name,
          code: 'POLICY_DENY',
          expected: 'affirming',
          actual,
          source: `policy ${appraisal['ear.appraisal-policy-id']}`,
        } as const);
  });
  return { check: 'attestation', code: children.find(({ code }) => code !== 'OK')?.code ?? 'OK', children };
}
