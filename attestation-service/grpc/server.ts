import { randomUUID } from 'node:crypto';
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
import { checkExposure, defaultPolicy, type FrontOptions, isAdministrator, requireAdministrator } from '../access.ts';
import { referenceValueHandlers } from '../reference-values/grpc-service.ts';
import type { AdministratorIdentity } from '../reference-values/provenance.ts';
import type { AttestationService } from '../service.ts';
import { type AttestationRequest, fromWire } from './requests.ts';
import { correlationIdHeader } from './side-channel.ts';
import { unary } from './unary.ts';

export interface GrpcServer {
  /** The port it listens at. */
  readonly port: number;
  close(): Promise<void>;
}

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
export async function serveGrpc(service: AttestationService, options: FrontOptions): Promise<GrpcServer> {
  checkExposure(options);
  const server = new Server({
    'grpc.max_receive_message_length': maxMessageBytes,
    'grpc.max_send_message_length': maxMessageBytes,
  });
  const requireAdmin = (metadata: Metadata): void => requireAdministrator(authorizationOf(metadata), options);
  const isAdmin = (metadata: Metadata): boolean => isAdministrator(authorizationOf(metadata), options);

  server.addService(toGrpcServiceDefinition(AttestationServiceDescription), {
    attestationEvaluate: unary(
      AttestationResponseSchema,
      async (request: AttestationRequest, metadata) => {
        // The token is affirming by the policy that appraised it: to choose another is to decide what is affirming.
        if (request.policyIds.some((id) => id !== defaultPolicy)) requireAdmin(metadata);
        const [correlationId] = metadata.get(correlationIdHeader);
        const evaluation = service.evaluate({
          evidences: request.verificationRequests.map(fromWire),
          policyIds: request.policyIds,
          correlationId:
            typeof correlationId === 'string' && /^[\w.-]{1,64}$/.test(correlationId) ? correlationId : randomUUID(),
        });
        const { token, ...explanation } = await evaluation;
        return { message: { attestationToken: token }, ...(isAdmin(metadata) ? { explanation } : {}) };
      },
      isAdmin,
    ),
    setAttestationPolicy: unary(
      SetPolicyResponseSchema,
      async ({ policyId, policy }: MessageShape<typeof SetPolicyRequestSchema>, metadata) => {
        requireAdmin(metadata);
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
      requireAdmin(call.metadata);
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

function authorizationOf(metadata: Metadata): unknown {
  return metadata.get('authorization')[0];
}

/** Who an administrator is; undefined where administration is open and nobody is known. */
function administratorOf(
  call: ServerUnaryCall<unknown, unknown>,
  { tls, adminSecret }: FrontOptions,
): AdministratorIdentity | undefined {
  const certificate = tls?.clientAuthorities === undefined ? undefined : call.getAuthContext().sslPeerCertificate;
  if (certificate !== undefined) {
    const { CN } = certificate.subject;
    const subject = Array.isArray(CN) ? CN.join(', ') : CN;
    return { subject: subject ?? '(no common name)', key: certificate.fingerprint256 };
  }
  return adminSecret === undefined ? undefined : { subject: 'holder of the admin secret', key: 'admin secret' };
}

function listen(server: Server, { address, tls }: FrontOptions): Promise<number> {
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
