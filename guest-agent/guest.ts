import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { performance } from 'node:perf_hooks';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { guestMessages } from '@sealpod/protocol/status';
import { TtrpcServer } from '@sealpod/protocol/ttrpc';
import { createRegoEngine, type RegoEngine } from '@sealpod/rego';
import { AgentPolicy, denyAllPolicy } from './agent-policy/index.ts';
import { AttestationAgent } from './attestation-agent/attestation-agent.ts';
import { addAttestationAgentService, attestationAgentSocket } from './attestation-agent/attestation-service.ts';
import { addChannelService } from './attestation-agent/channel-service.ts';
import { PinnedHttps } from './attestation-agent/pinned-https.ts';
import type { BrokerConnection } from './attestation-agent/rcar-client.ts';
import { describeFailure } from './attestation-agent/refusal.ts';
import type { Attester } from './attesters/attester.ts';
import { createSampleAttester } from './attesters/sample/sample-attester.ts';
import { createTpmAttester, type TpmAttesterOptions } from './attesters/tpm/tpm-attester.ts';
import { TpmClient } from './attesters/tpm/tpm-client.ts';
import { openTpmDevice, type TpmTransport } from './attesters/tpm/transport.ts';
import { failureFields, type Log } from './boot/console-log.ts';
import type { KernelSwitches } from './boot/kernel-command-line.ts';
import { type DuringStage, tellStages } from './boot/stages.ts';
import { DataHub } from './data-hub/data-hub.ts';
import { addDataHubServices, dataHubSocket } from './data-hub/data-hub-service.ts';
import { createImageStore, type ImageStore } from './image/index.ts';
import { type MeasuredInitdata, measureInitdata } from './initdata/measure.ts';
import { createPodService, type ImagePuller } from './pod/index.ts';
import { type RestServer, startRestServer } from './rest/rest-server.ts';

/** A generated policy compiles in 0.1 s; a guest without hardware virtualisation on a busy node needs many times that. */
const policyTimeoutMs = 120_000;

export interface GuestOptions {
  readonly switches: KernelSwitches;
  readonly version: string;
  readonly log: Log;
  /** Raw initdata document; undefined where the machine has none. */
  readonly readInitdata: () => Promise<Uint8Array | undefined>;
  readonly openTpm?: () => Promise<TpmTransport>;
  /** Where the guest keeps and serves things. */
  readonly paths?: GuestPaths;
  /** What the attester reads of the machine. */
  readonly machine?: Pick<TpmAttesterOptions, 'eventLog' | 'kernelCommandLine'>;
  /** Digest of the key by which the agent channel's TLS knows this guest; absent where it has none. */
  readonly channelKeySha256?: string;
}

export interface GuestPaths {
  readonly attestationAgentSocket: string;
  readonly dataHubSocket: string;
  readonly restPort: number;
  /** Images and containers' layers: memory of the guest, outside of what the host may write to. */
  readonly images: string;
}

const guestPaths: GuestPaths = {
  attestationAgentSocket,
  dataHubSocket,
  restPort: 8006,
  images: '/run/sealpod/images',
};

export interface Guest {
  /** Serves the agent API; give it the streams of the agent channel. */
  readonly server: TtrpcServer;
  /** SHA-256 of the measured document, hex. */
  readonly initdataDigest: string;
  /** Starts what the host need not wait for: the sockets of upstream's components, the REST API, the attestation key. */
  startServices(): Promise<void>;
  /** Ends everything that was started. */
  close(): Promise<void>;
}

/**
 * Measures the configuration and builds the guest from it. Nothing is served before it resolves.
 *
 * @throws SealpodError; the guest must not serve then
 */
export async function createGuest(options: GuestOptions): Promise<Guest> {
  const { switches, log } = options;
  const engine = createRegoEngine({ timeoutMs: policyTimeoutMs });
  // The engine's worker starts while the machine measures.
  const warm = engine.check(denyAllPolicy).catch((error: unknown) => error);
  const openTpm = options.openTpm ?? openTpmDevice;
  const measured = await measure(options, openTpm);
  log('info', 'initdata measured', { elapsed: Math.round(performance.now()) });
  const attester: Attester =
    switches.attester === 'sample'
      ? createSampleAttester()
      : createTpmAttester({ ...options.machine, transport: () => openTpm(), cloned: switches.template });
  // The TPM makes the key while the policy is compiled: the host asks for the proof of the agent channel at once. Where that
  // fails it is tried again, and told, when the services start.
  void attester.prepare().catch(() => undefined);
  try {
    // A failure of the warm start shows when the policy is loaded.
    await warm;
    return await assemble(options, { engine, measured, attester });
  } catch (thrown) {
    await Promise.all([attester.close(), engine.close()]);
    throw thrown;
  }
}

interface GuestParts {
  readonly engine: RegoEngine;
  readonly measured: MeasuredInitdata;
  readonly attester: Attester;
}

async function assemble(options: GuestOptions, { engine, measured, attester }: GuestParts): Promise<Guest> {
  const { switches, version, log, paths = guestPaths } = options;
  const during = tellStages(log);
  const attestationAgent = createAttestationAgent(measured, attester, during);
  const dataHub = new DataHub({
    attestationAgent,
    skipSealedSecretVerification: measured.dataHub.skipSealedSecretVerification,
  });
  const agentPolicy = await AgentPolicy.create({
    engine,
    ...(measured.agentPolicy === undefined ? {} : { policy: measured.agentPolicy }),
  });
  const images = createImages(measured, dataHub, paths.images, log);
  const pods = createPodService({
    images: imagePuller(images),
    agentPolicy,
    dataHub: { unseal: (secret) => dataHub.unsealSecret(Buffer.from(secret)) },
    volumes: { resource: (uri) => dataHub.getResource(uri).catch(tellReason) },
    version,
    during,
    onDenied: ({ request, reason }) => log('info', guestMessages.denied, { request, reason }),
  });
  const server = new TtrpcServer();
  pods.registerOn(server);
  if (options.channelKeySha256 !== undefined) addChannelService(server, attester, options.channelKeySha256);
  const attestationServer = new TtrpcServer();
  const dataHubServer = new TtrpcServer();
  let rest: RestServer | undefined;
  return {
    server,
    initdataDigest: measured.digest.toString('hex'),
    startServices: async () => {
      const pull = async (
        reference: string,
        bundle: string,
        signal: AbortSignal,
      ): Promise<{ manifestDigest: string }> => images.pull(reference, bundle, signal);
      await listen(addAttestationAgentService(attestationServer, attestationAgent), paths.attestationAgentSocket);
      await listen(addDataHubServices(dataHubServer, dataHub, pull), paths.dataHubSocket);
      if (switches.restFeatures !== 'none') {
        const { restFeatures: features } = switches;
        rest = await startRestServer({ attestationAgent, dataHub, features, version, port: paths.restPort });
      }
      // The first attestation then need not wait for the TPM to make the key. It is tried again where it fails here.
      await attester
        .prepare()
        .catch((error: unknown) => log('error', 'the attester is not ready', failureFields(error)));
    },
    close: async () => {
      await Promise.all([server.close(), attestationServer.close(), dataHubServer.close(), rest?.close()]);
      await pods.close();
      await attester.close();
      await engine.close();
    },
  };
}

async function measure(options: GuestOptions, openTpm: () => Promise<TpmTransport>): Promise<MeasuredInitdata> {
  const document = await options.readInitdata();
  if (options.switches.attester === 'sample') {
    options.log('info', 'sample attester: nothing is measured and nothing is proved');
    return await measureInitdata(document, async () => undefined);
  }
  const tpm = new TpmClient(await openTpm());
  try {
    return await measureInitdata(document, (pcr, digest) => tpm.extendPcr(pcr, digest));
  } finally {
    await tpm.close();
  }
}

function createAttestationAgent(measured: MeasuredInitdata, attester: Attester, during: DuringStage): AttestationAgent {
  const { kbs } = measured.attestationAgent;
  return new AttestationAgent({
    attester,
    initdata: measured.text,
    during: (attestation) => during('attesting', {}, attestation, ({ correlationId }) => correlationId),
    ...(kbs === undefined ? {} : { connection: connectionTo(kbs) }),
  });
}

/** An address or pin that cannot be used refuses each request with the reason, which then reaches the owner. */
function connectionTo({ url, cert = '' }: { readonly url: string; readonly cert?: string }): BrokerConnection {
  try {
    return new PinnedHttps({ url, pinned: cert });
  } catch (error) {
    return { send: () => Promise.reject(error) };
  }
}

function createImages(
  { dataHub: { image } }: MeasuredInitdata,
  hub: DataHub,
  workDirectory: string,
  log: Log,
): ImageStore {
  const policy =
    image.imageSecurityPolicyUri === undefined ? image.imageSecurityPolicy : { uri: image.imageSecurityPolicyUri };
  return createImageStore({
    workDirectory,
    ...(policy === undefined ? {} : { imagePolicy: typeof policy === 'string' ? { text: policy } : policy }),
    ...(image.authenticatedRegistryCredentialsUri === undefined
      ? {}
      : { credentials: { uri: image.authenticatedRegistryCredentialsUri } }),
    registries: image.registries,
    certificateAuthorities: image.extraRootCertificates,
    ...(image.maxConcurrentLayerDownloads === undefined
      ? {}
      : { maxConcurrentLayers: image.maxConcurrentLayerDownloads }),
    getResource: (uri) => hub.getResource(uri).catch(tellReason),
    notice: (text) => log('info', text),
  });
}

/** Puts code and correlation id into the message, which survives where an image failure is told with its own code. */
function tellReason(thrown: unknown): never {
  const error = asSealpodError(thrown);
  throw new SealpodError(error.code, describeFailure(error), { ...error.detail, cause: error });
}

function imagePuller(images: ImageStore): ImagePuller {
  return {
    release: (bundle) => images.release(bundle),
    pull: async (reference, bundle, signal) => {
      const { manifestDigest, rootfs, config } = await images.pull(reference, bundle, signal);
      return {
        manifestDigest,
        rootfs,
        config: {
          Env: config.environment,
          Entrypoint: config.entrypoint,
          Cmd: config.command,
          WorkingDir: config.workingDirectory,
          User: config.user,
        },
      };
    },
  };
}

async function listen(server: TtrpcServer, socket: string): Promise<void> {
  await mkdir(dirname(socket), { recursive: true, mode: 0o700 });
  await server.listen(socket);
}
