import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AttestationAgentService } from '@sealpod/protocol/gen/coco/attestation_agent_pb';
import { GetResourceService, ImagePullService } from '@sealpod/protocol/gen/coco/confidential_data_hub_pb';
import { AgentService } from '@sealpod/protocol/gen/kata/agent_pb';
import { Health } from '@sealpod/protocol/gen/kata/health_pb';
import { composeInitdata } from '@sealpod/protocol/initdata';
import { parseAttest } from '@sealpod/protocol/tpm';
import { createClient, TtrpcConnection } from '@sealpod/protocol/ttrpc';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { TpmClient } from './attesters/tpm/tpm-client.ts';
import { connectTpmSocket } from './attesters/tpm/transport.ts';
import { createGuest, type Guest } from './guest.ts';
import { emptyInitdata } from './initdata/measure.ts';
import { createServerIdentity } from './testing/https-server.ts';
import { createSoftwareTpm, missingSoftwareTpm, type SoftwareTpm } from './testing/software-tpm.ts';

const missing = missingSoftwareTpm();
const allowAll =
  'package agent_policy\nCreateSandboxRequest := true\nGuestDetailsRequest := true\nOnlineCPUMemRequest := true\n';

describe.skipIf(missing !== undefined)(
  `guest on a real software TPM${missing === undefined ? '' : `: ${missing}`}`,
  () => {
    let tpm: SoftwareTpm;
    let socket: string;
    let directory: string;
    const started: Guest[] = [];
    const connections: TtrpcConnection[] = [];

    beforeEach(async () => {
      tpm = await createSoftwareTpm();
      socket = await tpm.start();
      directory = mkdtempSync(join(tmpdir(), 'sealpod-guest-'));
    }, 60_000);
    afterEach(async () => {
      for (const connection of connections.splice(0)) connection.close();
      for (const guest of started.splice(0)) await guest.close();
      await tpm.remove();
      rmSync(directory, { recursive: true, force: true });
    });

    const paths = () => ({
      attestationAgentSocket: join(directory, 'aa/aa.sock'),
      dataHubSocket: join(directory, 'cdh.sock'),
      restPort: 0,
      images: join(directory, 'images'),
    });

    async function start(initdata: string | undefined): Promise<Guest> {
      const guest = await createGuest({
        switches: { attester: 'tpm', restFeatures: 'resource', template: false },
        version: '0.0.0',
        log: () => undefined,
        readInitdata: async () => (initdata === undefined ? undefined : Buffer.from(initdata)),
        openTpm: () => connectTpmSocket(socket),
        paths: paths(),
        machine: { eventLog: async () => Buffer.from('log'), kernelCommandLine: async () => 'quiet' },
      });
      started.push(guest);
      return guest;
    }

    async function connect(path: string): Promise<TtrpcConnection> {
      const connection = await TtrpcConnection.connect(path);
      connections.push(connection);
      return connection;
    }

    async function agentOf(guest: Guest): Promise<TtrpcConnection> {
      const path = join(directory, 'agent.sock');
      await guest.server.listen(path);
      return await connect(path);
    }

    it('measures initdata before it serves, and shows it in its evidence', async () => {
      const initdata = composeInitdata({ data: { 'policy.rego': allowAll } });
      const guest = await start(initdata);
      await guest.startServices();
      const digest = createHash('sha256').update(initdata).digest();
      expect(guest.initdataDigest).toBe(digest.toString('hex'));
      const agent = createClient(AttestationAgentService, await connect(paths().attestationAgentSocket));
      expect((await agent.getTeeType({})).tee).toBe('tpm');
      const runtimeData = Buffer.alloc(48, 7);
      const evidence = JSON.parse(
        Buffer.from((await agent.getEvidence({ RuntimeData: runtimeData })).Evidence).toString(),
      );
      const pcr8 = createHash('sha256').update(Buffer.alloc(32)).update(digest).digest('hex');
      expect(evidence.tpm_quote.pcrs[8]).toBe(pcr8);
      expect(
        parseAttest(Buffer.from(evidence.tpm_quote.message, 'base64')).extraData.equals(runtimeData.subarray(0, 32)),
      ).toBe(true);
    });

    it('answers Health without a policy and denies everything else without initdata', async () => {
      const guest = await start(undefined);
      expect(guest.initdataDigest).toBe(createHash('sha256').update(emptyInitdata).digest('hex'));
      const connection = await agentOf(guest);
      expect((await createClient(Health, connection).check({})).status).toBe(1);
      await expect(createClient(AgentService, connection).createSandbox({})).rejects.toMatchObject({
        status: 7,
        message: expect.stringContaining('AGENT_POLICY_DENY'),
      });
      await guest.startServices();
      const hub = await connect(paths().dataHubSocket);
      await expect(
        createClient(GetResourceService, hub).getResource({ ResourcePath: 'kbs:///a/b/c' }),
      ).rejects.toMatchObject({
        status: 13,
        message: expect.stringMatching(
          /^\[CDH\] \[ERROR\]: Get Resource failed: KBS_UNREACHABLE: initdata names no key broker/,
        ),
      });
    });

    it('G-03: refuses every image where initdata has no image policy', async () => {
      const guest = await start(composeInitdata({ data: { 'policy.rego': allowAll } }));
      await guest.startServices();
      const images = createClient(ImagePullService, await connect(paths().dataHubSocket));
      await expect(images.pullImage({ imageUrl: '127.0.0.1:1/a/b:c', bundlePath: directory })).rejects.toMatchObject({
        status: 13,
        message: expect.stringMatching(/^\[CDH\] \[ERROR\]: Image Pull error: (?:POLICY_UNSET|IMG_POLICY_DENY): /),
      });
    });

    it('serves nothing where the policy of initdata does not compile, or the document is malformed', async () => {
      await expect(
        start(composeInitdata({ data: { 'policy.rego': 'package agent_policy\nx if {' } })),
      ).rejects.toMatchObject({
        code: 'POLICY_INVALID',
      });
      await expect(start('no document')).rejects.toMatchObject({ code: 'INITDATA_SCHEMA' });
    });

    it('measures a document even where it is malformed, so that it leaves its trace', async () => {
      await expect(start('no document')).rejects.toMatchObject({ code: 'INITDATA_SCHEMA' });
      const client = new TpmClient(await connectTpmSocket(socket));
      const pcr8 = (await client.readPcrs())[8]?.toString('hex');
      await client.close();
      const digest = createHash('sha256').update('no document').digest();
      expect(pcr8).toBe(createHash('sha256').update(Buffer.alloc(32)).update(digest).digest('hex'));
    });

    it('serves nothing without a TPM', async () => {
      await tpm.stop();
      rmSync(socket, { force: true });
      await expect(start(undefined)).rejects.toMatchObject({ code: 'TEE_MISSING' });
    });

    it('refuses with the reason where the pin or the address of the key broker cannot be used', async () => {
      const { cert } = await createServerIdentity();
      for (const [url, pin, code] of [
        ['https://127.0.0.1:1', '', 'KBS_KEY'],
        ['http://127.0.0.1:1', cert, 'INITDATA_SCHEMA'],
      ]) {
        const aa = `[token_configs.kbs]\nurl = "${url}"\ncert = """\n${pin}"""\n`;
        const guest = await start(composeInitdata({ data: { 'aa.toml': aa } }));
        await guest.startServices();
        const hub = await connect(paths().dataHubSocket);
        await expect(
          createClient(GetResourceService, hub).getResource({ ResourcePath: 'kbs:///a/b/c' }),
        ).rejects.toMatchObject({
          message: expect.stringContaining(`: ${code}: `),
        });
        hub.close();
        started.splice(started.indexOf(guest), 1);
        await guest.close();
      }
    });
  },
);
