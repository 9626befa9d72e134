import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createAttestationService, simulatedTpmPolicy } from '@sealpod/attestation-service';
import { createKbs, parseKbsConfig } from '@sealpod/kbs';
import { signAdminToken } from '@sealpod/kbs-client/token';
import { openStorage } from '@sealpod/storage';
import { pino } from 'pino';
import {
  type BootEvent,
  bootEvents,
  encodeLog,
  machine,
  sha256,
} from '../../attestation-service/verifiers/tpm/testing/boot.ts';
import { AttestationAgent } from '../../guest-agent/attestation-agent/attestation-agent.ts';
import { PinnedHttps } from '../../guest-agent/attestation-agent/pinned-https.ts';
import type { Attester } from '../../guest-agent/attesters/attester.ts';
import { createTpmAttester } from '../../guest-agent/attesters/tpm/tpm-attester.ts';
import { TpmClient } from '../../guest-agent/attesters/tpm/tpm-client.ts';
import { connectTpmSocket } from '../../guest-agent/attesters/tpm/transport.ts';
import { measureInitdata } from '../../guest-agent/initdata/measure.ts';
import type { SoftwareTpm } from '../../guest-agent/testing/software-tpm.ts';
import { call, type Reply } from '../../kbs/testing/client.ts';

export interface TestBroker {
  readonly address: string;
  readonly certificate: string;
  admin(method: string, target: string, body?: string): Promise<Reply>;
  close(): Promise<void>;
}

/** Our key broker over TLS with our attestation service in its process; TPMs below `tpm`'s root are enrolled as simulated. */
export async function startBroker(tpm: SoftwareTpm): Promise<TestBroker> {
  const directory = mkdtempSync(join(tmpdir(), 'sealpod-broker-'));
  const keys = generateKeyPairSync('ed25519');
  writeFileSync(join(directory, 'owner.pem'), keys.publicKey.export({ type: 'spki', format: 'pem' }));
  const storage = await openStorage({ path: join(directory, 'attestation.db') });
  const certificates = tpm.issuerCertificate + tpm.rootCertificate;
  const attestation = await createAttestationService(
    { tpm: { roots: [{ name: 'local-swtpm', certificates, simulated: true }], requireTrustedKey: true } },
    { storage },
  );
  const config = parseKbsConfig(
    {
      listen: { host: '127.0.0.1', port: 0 },
      dataDirectory: 'data',
      admin: { keys: [{ publicKeyFile: 'owner.pem' }] },
      attestationService: { type: 'builtin' },
    },
    directory,
  );
  const kbs = await createKbs(config, { attestation, log: pino({ level: 'silent' }) });
  const certificate = kbs.certificatePem ?? '';
  return {
    address: kbs.address,
    certificate,
    admin: async (method, target, body) => {
      const token = await signAdminToken({
        privateKey: keys.privateKey,
        role: 'owner',
        subject: 'test',
        ttlSeconds: 600,
      });
      const headers = { authorization: `Bearer ${token}`, 'content-type': contentType(target) };
      const reply = await call(kbs.address, target, {
        method,
        headers,
        ca: certificate,
        ...(body === undefined ? {} : { body }),
      });
      if (reply.status >= 300) throw new Error(`${method} ${target}: ${reply.status} ${reply.text}`);
      return reply;
    },
    close: async () => {
      await kbs.close(200);
      await attestation.close();
      await storage.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

function contentType(target: string): string {
  if (target.includes('/policies/')) return 'text/plain';
  return target.includes('/resources/') ? 'application/octet-stream' : 'application/json';
}

/** Registers the machine that {@link bootGuest} boots by default, and the policy that admits a simulated TPM by name. */
export async function registerMachine(broker: TestBroker, pcrs: readonly Buffer[], initdata: string): Promise<void> {
  const hex = (content: Uint8Array): string => sha256(content).toString('hex');
  const configuration = Buffer.concat([1, 2, 3, 5, 6, 7].map((register) => pcrs[register] ?? Buffer.alloc(0)));
  const values = {
    tpm_firmware: pcrs[0]?.toString('hex'),
    tpm_firmware_configuration: hex(configuration),
    tpm_loader: hex(Buffer.from(machine.loader)),
    tpm_kernel: hex(Buffer.from(machine.kernel)),
    tpm_command_line: hex(Buffer.from(`${machine.commandLine}\0`)),
    tpm_initrd: hex(Buffer.from(machine.initrd)),
    tpm_root_hash: /roothash=(\w+)/.exec(machine.commandLine)?.[1],
    tpm_initdata: hex(Buffer.from(initdata)),
  };
  for (const [id, value] of Object.entries(values)) {
    await broker.admin('PUT', `/admin/v1/reference-values/${id}`, JSON.stringify({ value: [value] }));
  }
  await broker.admin('PUT', '/admin/v1/policies/attestation/default_cpu', simulatedTpmPolicy);
}

export interface BootedGuest {
  readonly attester: Attester;
  readonly agent: AttestationAgent;
  readonly pcrs: readonly Buffer[];
  close(): Promise<void>;
}

export interface BootOptions {
  readonly broker: Pick<TestBroker, 'address' | 'certificate'>;
  readonly initdata: string;
  /** What the machine really runs. */
  readonly machine?: Partial<typeof machine>;
  /** Changes the log that the guest shows, not what was measured. */
  readonly shown?: (events: readonly BootEvent[]) => readonly BootEvent[];
  /** Stands between agent and TPM: a hostile guest. */
  readonly attester?: (genuine: Attester) => Attester;
}

/** Boots a machine on a real software TPM: fresh registers, every event of a boot, initdata measured by the guest's own code. */
export async function bootGuest(tpm: SoftwareTpm, options: BootOptions): Promise<BootedGuest> {
  const socket = await tpm.start();
  const events = bootEvents({ ...machine, ...options.machine });
  const client = new TpmClient(await connectTpmSocket(socket));
  for (const { register, data, measured } of events) await client.extendPcr(register, sha256(measured ?? data));
  const measured = await measureInitdata(Buffer.from(options.initdata), (pcr, digest) => client.extendPcr(pcr, digest));
  const pcrs = await client.readPcrs();
  await client.close();
  const genuine = createTpmAttester({
    transport: () => connectTpmSocket(socket),
    eventLog: async () => encodeLog([...(options.shown?.(events) ?? events)]),
    kernelCommandLine: async () => ({ ...machine, ...options.machine }).commandLine,
  });
  const attester = options.attester?.(genuine) ?? genuine;
  const connection = new PinnedHttps({ url: options.broker.address, pinned: options.broker.certificate });
  return {
    attester,
    pcrs,
    agent: new AttestationAgent({ attester, connection, initdata: measured.text, attempts: 2, retryDelayMs: 1 }),
    close: async () => {
      connection.close();
      await genuine.close();
    },
  };
}
