import { createHash, randomUUID, timingSafeEqual } from 'node:crypto';
import type { MessageShape } from '@bufbuild/protobuf';
import { type Metadata, Server, ServerCredentials, type ServerUnaryCall } from '@grpc/grpc-js';
import { SealpodError } from '@sealpod/protocol/errors';
import {
  AttestationResponseSchema,
  AttestationService as AttestationServiceDescription,
  type ChallengeRequestSchema,
  ChallengeResponseSchema,
  type SetPolicyRequestSchema,
  SetPolicyResponseSchema,
} from '@sealpod/protocol/gen/coco/attestation_pb';
import { ReferenceValueProviderService } from '@sealpod/protocol/gen/coco/reference_pb';
import {
  Health,
  type HealthCheckRequestSchema,
  HealthCheckResponse_ServingStatus,
  HealthCheckResponseSchema,
} from '@sealpod/protocol/gen/grpc/health_v1_pb';
import { toGrpcServiceDefinition } from '@sealpod/protocol/grpc';
import { decodeBase64Url } from '@sealpod/protocol/json';
import { referenceValueHandlers } from '../reference-values/grpc-service.ts';
import type { AdministratorIdentity } from '../reference-values/provenance.ts';
import type { AttestationService } from '../service.ts';
import { type AttestationRequest, fromWire } from './requests.ts';
import { correlationIdHeader } from './side-channel.ts';
import { unary } from './unary.ts';

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
  server.addService(
    toGrpcServiceDefinition(ReferenceValueProviderService),
    referenceValueHandlers(service, (call) => {
      requireAdministrator(call.metadata);
      return administratorOf(call, options);
    }),
  );
  server.addService(toGrpcServiceDefinition(Health), {
    check: unary(HealthCheckResponseSchema, async (_request: MessageShape<typeof HealthCheckRequestSchema>) => ({
      message: { status: HealthCheckResponse_ServingStatus.SERVING },
    })),
  });
  const port = await listen(server, options);
  return { port, close: () => close(server) };
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

/** Who an administrator is; undefined where administration is open and nobody is known. */
function administratorOf(
  call: ServerUnaryCall<unknown, unknown>,
  { tls, adminSecret }: GrpcServerOptions,
): AdministratorIdentity | undefined {
  const certificate = tls?.clientAuthorities === undefined ? undefined : call.getAuthContext().sslPeerCertificate;
  if (certificate !== undefined) {
    const { CN } = certificate.subject;
    const subject = Array.isArray(CN) ? CN.join(', ') : CN;
    return { subject: subject ?? '(no common name)', key: certificate.fingerprint256 };
  }
  return adminSecret === undefined ? undefined : { subject: 'holder of the admin secret', key: 'admin secret' };
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
