import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ChannelIdentity, createChannelIdentity } from '@sealpod/protocol/agent-channel';
import { Health } from '@sealpod/protocol/gen/kata/health_pb';
import { AgentChannel as ChannelService } from '@sealpod/protocol/gen/sealpod/agent_channel_pb';
import { createClient, TtrpcConnection, TtrpcServer } from '@sealpod/protocol/ttrpc';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { addChannelService } from '../../guest-agent/attestation-agent/channel-service.ts';
import type { Attester } from '../../guest-agent/attesters/attester.ts';
import { createTpmAttester } from '../../guest-agent/attesters/tpm/tpm-attester.ts';
import { connectTpmSocket } from '../../guest-agent/attesters/tpm/transport.ts';
import { AgentChannel } from '../../guest-agent/boot/agent-channel.ts';
import { createSoftwareTpm, missingSoftwareTpm, type SoftwareTpm } from '../../guest-agent/testing/software-tpm.ts';
import { proveGuest } from '../../peer-pods/adaptor/guest-proof.ts';
import { AgentProxy } from '../../peer-pods/agent-proxy/agent-proxy.ts';
import { SecureDial } from '../../peer-pods/agent-proxy/secure-dial.ts';

const missing = missingSoftwareTpm();
const { signal } = new AbortController();

/** A machine: a TPM, and a guest agent behind a byte stream that stands in for the serial port. */
interface Machine {
  readonly attester: Attester;
  readonly endorsementCertificate: Buffer;
  readonly tpm: SoftwareTpm;
}

async function makeMachine(): Promise<Machine> {
  const tpm = await createSoftwareTpm();
  const socket = await tpm.start();
  const attester = createTpmAttester({ transport: () => connectTpmSocket(socket) });
  const { tpm: parameters } = (await attester.prepare()) as { tpm: { 'ek-certificate': string } };
  return { attester, tpm, endorsementCertificate: Buffer.from(parameters['ek-certificate'], 'base64') };
}

describe.skipIf(missing !== undefined)(`the agent channel${missing ? ` (skipped: ${missing})` : ''}`, () => {
  let machines: Machine[];
  let adaptorKey: ChannelIdentity;
  let folder: string;
  let cleanups: (() => unknown)[];
  let count = 0;

  beforeAll(async () => {
    machines = [await makeMachine(), await makeMachine()];
    adaptorKey = await createChannelIdentity();
  }, 60_000);
  afterAll(async () => {
    for (const { attester, tpm } of machines) {
      await attester.close();
      await tpm.remove();
    }
  });
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'sealpod-channel-'));
    cleanups = [];
  });
  afterEach(async () => {
    for (const cleanup of cleanups.reverse()) await cleanup();
    rmSync(folder, { recursive: true, force: true });
  });

  const machine = (index: number): Machine => {
    const found = machines[index];
    if (found === undefined) throw new Error(`there is no machine ${index}`);
    return found;
  };

  async function listen(onConnection: (socket: Socket) => void): Promise<string> {
    const path = join(folder, `channel-${count++}`);
    const sockets = new Set<Socket>();
    const server: Server = createServer((socket) => {
      sockets.add(socket);
      socket.on('error', () => undefined);
      onConnection(socket);
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    cleanups.push(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    return path;
  }

  /** Boots a guest on a machine; returns the path of its channel. */
  async function boot(on: Machine): Promise<{ path: string; log: string[]; key: string }> {
    const identity = await createChannelIdentity();
    const server = new TtrpcServer().addService(Health, { check: () => ({ status: 1 }) });
    addChannelService(server, on.attester, identity.keySha256);
    cleanups.push(() => server.close());
    const log: string[] = [];
    const serve = server.serve.bind(server);
    const channel = new AgentChannel(identity, serve, (_level, message) => log.push(message));
    const path = await listen((socket) => {
      socket.once('readable', () => {
        const first = socket.read() as Buffer | null;
        if (first === null) return;
        socket.unshift(first);
        channel.accept(socket, first[0] ?? 0);
      });
    });
    return { path, log, key: identity.keySha256 };
  }

  function proxyTo(path: string, dial: SecureDial): AgentProxy {
    const proxy = new AgentProxy({
      ...{ socketPath: path, settleMs: 10, reconnectMs: 500 },
      dial: (socketPath, timeoutMs) => dial.connect(socketPath, Math.min(timeoutMs, 3000)),
    });
    cleanups.push(() => proxy.close());
    return proxy;
  }

  const check = async (proxy: AgentProxy) =>
    (await createClient(Health, await proxy.guest.connect()).check({}, { timeoutMs: 3000 })).status;

  it('is proved by the TPM of its machine, and carries calls before and after a loss', async () => {
    const { path, key } = await boot(machine(0));
    const dial = new SecureDial(adaptorKey);
    const proxy = proxyTo(path, dial);
    expect(await check(proxy)).toBe(1);
    expect(dial.guestKey).toBe(key);
    await proveGuest(proxy.guest, machine(0).endorsementCertificate, key, signal);
    (await proxy.guest.connect()).close();
    expect(await check(proxy)).toBe(1);
    // A restarted adaptor has the same key and knows the guest's from its journal.
    const restarted = proxyTo(path, new SecureDial(adaptorKey, key));
    await proxy.close();
    expect(await check(restarted)).toBe(1);
  });

  it('of another machine is refused, whatever it says of itself', async () => {
    const { path, key } = await boot(machine(1));
    const proxy = proxyTo(path, new SecureDial(adaptorKey));
    await expect(
      check(proxy).then(() => proveGuest(proxy.guest, machine(0).endorsementCertificate, key, signal)),
    ).rejects.toMatchObject({ message: expect.stringContaining('EV_AK_UNTRUSTED') });
  });

  it('with somebody in its middle is refused: the machine signs another key than his', async () => {
    const genuine = await boot(machine(0));
    const [his, towards] = [await createChannelIdentity(), new SecureDial(await createChannelIdentity())];
    const onward = await towards.connect(genuine.path, 3000);
    cleanups.push(() => onward.close());
    const relay = new TtrpcServer().setFallback((service, method, payload) => onward.call(service, method, payload));
    cleanups.push(() => relay.close());
    const middle = new AgentChannel(
      his,
      (stream) => relay.serve(stream),
      () => undefined,
    );
    const path = await listen((socket) => middle.accept(socket, 0x16));
    const dial = new SecureDial(adaptorKey);
    const proxy = proxyTo(path, dial);
    expect(await check(proxy)).toBe(1);
    expect(dial.guestKey).toBe(his.keySha256);
    await expect(
      proveGuest(proxy.guest, machine(0).endorsementCertificate, his.keySha256, signal),
    ).rejects.toMatchObject({ code: 'EV_BINDING_MISMATCH' });
  });

  it('swapped for another machine later is refused by name', async () => {
    const [first, second] = [await boot(machine(0)), await boot(machine(1))];
    const dial = new SecureDial(adaptorKey, first.key);
    await expect(dial.connect(second.path, 3000)).rejects.toMatchObject({
      message: expect.stringMatching(/^EV_BINDING_MISMATCH: another machine answers/),
    });
    expect(dial.guestKey).toBe(first.key);
  });

  it('lets nobody in but the adaptor that came first, neither with another key nor without TLS', async () => {
    const { path, log } = await boot(machine(0));
    const proxy = proxyTo(path, new SecureDial(adaptorKey));
    expect(await check(proxy)).toBe(1);
    const other = proxyTo(path, new SecureDial(await createChannelIdentity()));
    await expect(check(other)).rejects.toMatchObject({ status: 14 });
    const plain = await TtrpcConnection.connect(path);
    cleanups.push(() => plain.close());
    await expect(createClient(Health, plain).check({}, { timeoutMs: 300 })).rejects.toMatchObject({ status: 4 });
    expect(log.filter((message) => message === 'the agent channel is for another peer').length).toBeGreaterThan(1);
    expect(await check(proxy)).toBe(1);
  });

  it('is not lost to what is left of a handshake that was broken off while the guest booted', async () => {
    const { path } = await boot(machine(0));
    for (const bytes of ['16030100050100', '00000005000000010100', 'ffee']) {
      const remains = connect(path);
      await new Promise<void>((resolve) => remains.write(Buffer.from(bytes, 'hex'), () => resolve()));
      await new Promise((resolve) => setTimeout(resolve, 100));
      remains.destroy();
    }
    expect(await check(proxyTo(path, new SecureDial(adaptorKey)))).toBe(1);
  });

  it('without TLS from the first on stays without', async () => {
    const { path } = await boot(machine(0));
    const plain = await TtrpcConnection.connect(path);
    cleanups.push(() => plain.close());
    expect((await createClient(Health, plain).check({})).status).toBe(1);
    const proxy = proxyTo(path, new SecureDial(adaptorKey));
    await expect(check(proxy)).rejects.toMatchObject({ status: 14 });
    expect((await createClient(Health, plain).check({})).status).toBe(1);
  });

  it("gives away no secret of another protocol, and takes no other bytes for the TPM's", async () => {
    const { path } = await boot(machine(0));
    const plain = await TtrpcConnection.connect(path);
    cleanups.push(() => plain.close());
    const service = createClient(ChannelService, plain);
    const request = {
      nonce: Buffer.alloc(32),
      credentialBlob: Buffer.from('0001ff', 'hex'),
      encryptedSecret: Buffer.alloc(2),
    };
    for (const wrong of [
      { nonce: Buffer.alloc(31) },
      { credentialBlob: Buffer.from('0002ff', 'hex') },
      { encryptedSecret: Buffer.alloc(2000) },
    ])
      await expect(service.prove({ ...request, ...wrong })).rejects.toMatchObject({ status: 3 });
    await expect(service.prove(request)).rejects.toMatchObject({ message: expect.stringMatching(/TPM|TEE|EV_AK/) });
  });
});
