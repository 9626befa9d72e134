import { createHash, randomUUID, timingSafeEqual } from 'node:crypto';
import { create, type DescMessage, type MessageInitShape, type MessageShape } from '@bufbuild/protobuf';
import {
  type Metadata,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import {
  AttestationResponseSchema,
  AttestationService as AttestationServiceDescription,
  type ChallengeRequestSchema,
  ChallengeResponseSchema,
  type SetPolicyRequestSchema,
  SetPolicyResponseSchema,
} from '@sealpod/protocol/gen/coco/attestation_pb';
import {
  ReferenceValueProviderService,
  type ReferenceValueQueryRequestSchema,
  ReferenceValueQueryResponseSchema,
  type ReferenceValueRegisterRequestSchema,
  ReferenceValueRegisterResponseSchema,
} from '@sealpod/protocol/gen/coco/reference_pb';
import {
  Health,
  type HealthCheckRequestSchema,
  HealthCheckResponse_ServingStatus,
  HealthCheckResponseSchema,
} from '@sealpod/protocol/gen/grpc/health_v1_pb';
import { toGrpcServiceDefinition } from '@sealpod/protocol/grpc';
import { decodeBase64Url } from '@sealpod/protocol/json';
import { AttestationRefused, type AttestationService } from '../service.ts';
import { type AttestationRequest, fromWire } from './requests.ts';
import { correlationIdHeader, type Explanation, explain } from './side-channel.ts';

export interface GrpcServerOptions {
  /** `host:port`; port 0 takes a free one. */
  readonly address: string;
  /** PEM. Required for any address but a loopback one. */
  readonly tls?: {
    readonly certificate: string;
    readonly key: string;
    /** Certificate authorities of clients: then every caller needs a certificate, and is an administrator. */
    readonly clientAuthorities?: string;
  };
  /** What an administrator sends as `authorization: Bearer …`. At least 16 characters. */
  readonly adminSecret?: string;
  /** Lets anyone who reaches the socket set policies and reference values, as upstream. Loopback addresses only. */
  readonly openAdministration?: boolean;
}

export interface GrpcServer {
  /** The port it listens at. */
  readonly port: number;
  close(): Promise<void>;
}

/** The policy that appraises where none is named. */
const defaultPolicy = 'default';
/** Upstream's evidence limit through its REST body, with room for base64. */
const maxMessageBytes = 8 * 1024 * 1024;

/**
 * Serves `attestation.AttestationService`, `reference.ReferenceValueProviderService` and `grpc.health.v1.Health`.
 *
 * Evaluation by the default policy and challenges are open to whoever reaches the socket, as upstream. Other policies, and
 * setting policies and reference values, are for administrators only: a client certificate, the shared secret, or `openAdministration` on a loopback address.
 *
 * @throws SealpodError USAGE for a configuration that would be open to the network, NETWORK where it cannot listen
 */
export async function serveGrpc(service: AttestationService, options: GrpcServerOptions): Promise<GrpcServer> {
  checkExposure(options);
  const server = new Server({
    'grpc.max_receive_message_length': maxMessageBytes,
    'grpc.max_send_message_length': maxMessageBytes,
  });
  const isAdministrator = (metadata: Metadata): boolean => administrator(metadata, options);
  const requireAdministrator = (metadata: Metadata): void => {
    if (!isAdministrator(metadata))
      throw new SealpodError('ADMIN_TOKEN', 'only an administrator may do this', {
        fix: 'configure adminSecret or client certificates',
      });
  };

  server.addService(toGrpcServiceDefinition(AttestationServiceDescription), {
    attestationEvaluate: unary(
      AttestationResponseSchema,
      async (request: AttestationRequest, metadata) => {
        // The token is affirming by the policy that appraised it: to choose another is to decide what is affirming.
        if (request.policyIds.some((id) => id !== defaultPolicy)) requireAdministrator(metadata);
        const [correlationId] = metadata.get(correlationIdHeader);
        const evaluation = service.evaluate({
          evidences: request.verificationRequests.map(fromWire),
          policyIds: request.policyIds,
          correlationId:
            typeof correlationId === 'string' && /^[\w.-]{1,64}$/.test(correlationId) ? correlationId : randomUUID(),
        });
        const { token, ...explanation } = await evaluation;
        return { message: { attestationToken: token }, ...(isAdministrator(metadata) ? { explanation } : {}) };
      },
      isAdministrator,
    ),
    setAttestationPolicy: unary(
      SetPolicyResponseSchema,
      async ({ policyId, policy }: MessageShape<typeof SetPolicyRequestSchema>, metadata) => {
        requireAdministrator(metadata);
        await service.setPolicy(
          policyId,
          decodeBase64Url(policy, { what: 'policy', code: 'POLICY_INVALID' }).toString('utf8'),
        );
        return { message: {} };
      },
    ),
    getAttestationChallenge: unary(
      ChallengeResponseSchema,
      async ({ inner }: MessageShape<typeof ChallengeRequestSchema>) => ({
        message: { attestationChallenge: await service.challenge(inner) },
      }),
    ),
  });
  server.addService(toGrpcServiceDefinition(ReferenceValueProviderService), {
    queryReferenceValue: unary(
      ReferenceValueQueryResponseSchema,
      async ({ referenceValueId }: MessageShape<typeof ReferenceValueQueryRequestSchema>, metadata) => {
        requireAdministrator(metadata);
        const stored = await service.getReferenceValue(referenceValueId);
        return { message: stored === undefined ? {} : { referenceValueResults: JSON.stringify(stored.value) } };
      },
    ),
    registerReferenceValue: unary(
      ReferenceValueRegisterResponseSchema,
      async ({ message }: MessageShape<typeof ReferenceValueRegisterRequestSchema>, metadata) => {
        requireAdministrator(metadata);
        await service.registerReferenceValues(message);
        return { message: {} };
      },
    ),
  });
  server.addService(toGrpcServiceDefinition(Health), {
    check: unary(HealthCheckResponseSchema, async (_request: MessageShape<typeof HealthCheckRequestSchema>) => ({
      message: { status: HealthCheckResponse_ServingStatus.SERVING },
    })),
  });
  const port = await listen(server, options);
  return { port, close: () => close(server) };
}

interface Answer<Schema extends DescMessage> {
  readonly message: MessageInitShape<Schema>;
  readonly explanation?: Omit<Explanation, 'verdict'> & Pick<Explanation, 'verdict'>;
}

/** Adapts an asynchronous handler: answers, and turns what it throws into a status as upstream does (ABORTED, with text). */
function unary<Request, Schema extends DescMessage>(
  schema: Schema,
  handle: (request: Request, metadata: Metadata) => Promise<Answer<Schema>>,
  mayExplain: (metadata: Metadata) => boolean = () => false,
) {
  return (
    call: ServerUnaryCall<Request, MessageShape<Schema>>,
    callback: sendUnaryData<MessageShape<Schema>>,
  ): void => {
    handle(call.request, call.metadata).then(
      ({ message, explanation }) =>
        callback(null, create(schema, message), explain(explanation && pickExplanation(explanation))),
      (thrown: unknown) => {
        const error = asSealpodError(thrown);
        const explanation = error instanceof AttestationRefused && mayExplain(call.metadata) ? error : undefined;
        const denied = error.code === 'ADMIN_TOKEN';
        callback({
          code: denied ? status.PERMISSION_DENIED : status.ABORTED,
          details: `${error.code}: ${error.message}`,
          metadata: explain(
            explanation && { verdict: explanation.verdict, evidenceDigest: explanation.evidenceDigest },
            error.code,
          ),
        });
      },
    );
  };
}

function pickExplanation({
  verdict,
  evidenceDigest,
  policyVersions,
  referenceValueVersions,
}: Explanation): Explanation {
  return {
    verdict,
    evidenceDigest,
    ...(policyVersions === undefined ? {} : { policyVersions }),
    ...(referenceValueVersions === undefined ? {} : { referenceValueVersions }),
  };
}

/** @throws SealpodError USAGE for a configuration that would be open to the network */
export function checkExposure({ address, tls, adminSecret, openAdministration }: GrpcServerOptions): void {
  const loopback = /^(127\.\d+\.\d+\.\d+|localhost|\[::1\]):\d+$/.test(address);
  if (!loopback && tls === undefined) {
    throw new SealpodError('USAGE', 'without TLS the service listens at a loopback address only', { actual: address });
  }
  if (openAdministration === true && !loopback) {
    throw new SealpodError('USAGE', 'open administration is for loopback addresses only', { actual: address });
  }
  if (adminSecret !== undefined && adminSecret.length < 16) {
    throw new SealpodError('USAGE', 'the admin secret is too short', { expected: 'at least 16 characters' });
  }
}

/** With client authorities configured, the handshake has already refused every caller without a certificate. */
function administrator(metadata: Metadata, { tls, adminSecret, openAdministration }: GrpcServerOptions): boolean {
  if (tls?.clientAuthorities !== undefined || openAdministration === true) return true;
  const [presented] = metadata.get('authorization');
  if (adminSecret === undefined || typeof presented !== 'string') return false;
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(presented), digest(`Bearer ${adminSecret}`));
}

function listen(server: Server, { address, tls }: GrpcServerOptions): Promise<number> {
  const credentials =
    tls === undefined
      ? ServerCredentials.createInsecure()
      : ServerCredentials.createSsl(
          tls.clientAuthorities === undefined ? null : Buffer.from(tls.clientAuthorities),
          [{ private_key: Buffer.from(tls.key), cert_chain: Buffer.from(tls.certificate) }],
          tls.clientAuthorities !== undefined,
        );
  return new Promise((resolve, reject) => {
    server.bindAsync(address, credentials, (cause, port) => {
      if (cause === null) resolve(port);
      else reject(new SealpodError('NETWORK', 'the attestation service cannot listen', { actual: address, cause }));
    });
  });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    const force = setTimeout(() => server.forceShutdown(), 2000);
    server.tryShutdown(() => {
      clearTimeout(force);
      resolve();
    });
  });
}
