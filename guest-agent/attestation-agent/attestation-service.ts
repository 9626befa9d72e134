import { asSealpodError } from '@sealpod/protocol/errors';
import { AttestationAgentService, RuntimeMeasurementResult } from '@sealpod/protocol/gen/coco/attestation_agent_pb';
import { Status, TtrpcError, type TtrpcServer } from '@sealpod/protocol/ttrpc';
import type { AttestationAgent } from './attestation-agent.ts';
import { describeFailure } from './refusal.ts';

/** Where upstream's Kata agent, data hub and REST server look for this service. */
export const attestationAgentSocket = '/run/confidential-containers/attestation-agent/attestation-agent.sock';

/**
 * Serves `attestation_agent.AttestationAgentService` as upstream's attestation-agent does, with the reason of a failure
 * appended to upstream's text. `BindInitData` is answered as there: not supported, initdata is measured at boot.
 *
 * Whoever can open the socket can obtain the token and its key, so the socket must be root's alone.
 */
export function addAttestationAgentService(server: TtrpcServer, agent: AttestationAgent): TtrpcServer {
  return server.addService(AttestationAgentService, {
    getEvidence: ({ RuntimeData }) =>
      answer('AA-KBC get evidence failed', async () => ({ Evidence: Buffer.from(await agent.evidence(RuntimeData)) })),
    getAdditionalEvidence: () => ({ Evidence: new Uint8Array() }),
    getToken: ({ TokenType }) =>
      answer('AA-KBC get token failed', async () => ({ Token: await tokenDocument(agent, TokenType) })),
    extendRuntimeMeasurement: () => ({ Result: RuntimeMeasurementResult.NOT_ENABLED }),
    getTeeType: () => ({ tee: agent.tee }),
    getAdditionalTees: () => ({ additionalTees: [] }),
  });
}

/** JSON `{"token", "tee_keypair"}`: the JWT, and the private key (PKCS#8 PEM) of the session it was issued in. */
export async function tokenDocument(agent: AttestationAgent, type: string): Promise<Buffer> {
  if (type !== 'kbs') throw new TtrpcError(Status.internal, 'UNSUPPORTED: token type, expected kbs');
  const { token, teeKey } = await agent.token();
  return Buffer.from(JSON.stringify({ token, tee_keypair: teeKey.export({ type: 'pkcs8', format: 'pem' }) }));
}

async function answer<Result>(text: string, produce: () => Promise<Result>): Promise<Result> {
  try {
    return await produce();
  } catch (cause) {
    const reason = cause instanceof TtrpcError ? cause.message : describeFailure(asSealpodError(cause));
    throw new TtrpcError(Status.internal, `[ERROR:attestation-agent] ${text}: ${reason}`, { cause });
  }
}
