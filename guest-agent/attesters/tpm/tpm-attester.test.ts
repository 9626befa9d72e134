import {
  constants,
  createCipheriv,
  createHash,
  createHmac,
  createPublicKey,
  publicEncrypt,
  randomBytes,
  verify,
  X509Certificate,
} from 'node:crypto';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject } from '@sealpod/protocol/json';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createSoftwareTpm, missingSoftwareTpm, type SoftwareTpm } from '../../testing/software-tpm.ts';
import { createTpmAttester } from './tpm-attester.ts';
import { TpmClient } from './tpm-client.ts';
import { connectTpmSocket, openTpmDevice, type TpmTransport } from './transport.ts';

const missing = missingSoftwareTpm();
const log = Buffer.from('event log');

async function code(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof SealpodError) return error.code;
    throw error;
  }
  return 'accepted';
}

function text(value: unknown): string {
  if (typeof value !== 'string') throw new Error('expected a string');
  return value;
}

function object(value: unknown): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error('expected an object');
  return value as JsonObject;
}

/** TPM2B with its length. */
function sized(bytes: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

function kdfa(key: Buffer, label: string, context: Buffer, bits: number): Buffer {
  const counter = Buffer.from([0, 0, 0, 1]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bits);
  const mac = createHmac('sha256', key).update(counter).update(`${label}\0`).update(context).update(length).digest();
  return mac.subarray(0, bits / 8);
}

/** MakeCredential in software (TPM 2.0 Library, part 1, §24): independent of the code under test. */
function makeCredential(
  ekCertificate: Buffer,
  akPublicArea: Buffer,
  secret: Buffer,
): { blob: Buffer; encryptedSecret: Buffer } {
  const name = Buffer.concat([Buffer.from([0, 0x0b]), createHash('sha256').update(akPublicArea).digest()]);
  const seed = randomBytes(32);
  const encrypted = publicEncrypt(
    {
      key: new X509Certificate(ekCertificate).publicKey,
      padding: constants.RSA_PKCS1_OAEP_PADDING,
      oaepHash: 'sha256',
      oaepLabel: Buffer.from('IDENTITY\0'),
    },
    seed,
  );
  const cipher = createCipheriv('aes-128-cfb', kdfa(seed, 'STORAGE', name, 128), Buffer.alloc(16));
  const identity = Buffer.concat([cipher.update(sized(secret)), cipher.final()]);
  const integrity = createHmac('sha256', kdfa(seed, 'INTEGRITY', Buffer.alloc(0), 256))
    .update(identity)
    .update(name)
    .digest();
  return { blob: sized(Buffer.concat([sized(integrity), identity])), encryptedSecret: sized(encrypted) };
}

function challengeFor(request: JsonObject, secret: Buffer): JsonObject {
  const tpm = object(request['tpm']);
  const { blob, encryptedSecret } = makeCredential(
    Buffer.from(text(tpm['ek-certificate']), 'base64'),
    Buffer.from(text(tpm['ak-public']), 'base64'),
    secret,
  );
  return {
    tpm: { 'credential-blob': blob.toString('base64'), 'encrypted-secret': encryptedSecret.toString('base64') },
  };
}

describe.skipIf(missing !== undefined)(
  `TPM attester on a real software TPM${missing === undefined ? '' : `: ${missing}`}`,
  () => {
    let tpm: SoftwareTpm;
    let other: SoftwareTpm;
    let socket: string;
    let otherSocket: string;

    beforeAll(async () => {
      [tpm, other] = await Promise.all([createSoftwareTpm(), createSoftwareTpm()]);
      [socket, otherSocket] = await Promise.all([tpm.start(), other.start()]);
    }, 60_000);
    afterAll(async () => {
      await tpm?.remove();
      await other?.remove();
    });

    /** Runs with its own connection: a software TPM serves one at a time. */
    async function withAttester<Result>(
      path: string,
      use: (attester: ReturnType<typeof createTpmAttester>) => Promise<Result>,
      cloned = false,
    ): Promise<Result> {
      const attester = createTpmAttester({
        cloned,
        transport: () => connectTpmSocket(path),
        eventLog: async () => log,
        kernelCommandLine: async () => 'quiet roothash=00',
      });
      try {
        return await use(attester);
      } finally {
        await attester.close();
      }
    }

    it('has one key for one TPM, and in a clone a key of its own that the same endorsement key vouches for', async () => {
      const keyOf = (cloned: boolean): Promise<string> =>
        withAttester(
          socket,
          async (attester) => {
            const request = await attester.prepare();
            const secret = randomBytes(32);
            const evidence = await attester.evidence(randomBytes(48), challengeFor(request, secret));
            expect(evidence['activated_secret']).toBe(secret.toString('base64'));
            return text(evidence['ak_public']);
          },
          cloned,
        );
      const own = await keyOf(false);
      expect(await keyOf(false)).toBe(own);
      expect(new Set([own, await keyOf(true), await keyOf(true)]).size).toBe(3);
    });

    it('makes evidence whose every part verifies', async () => {
      await withAttester(socket, async (attester) => {
        const request = await attester.prepare();
        const secret = randomBytes(32);
        const reportData = randomBytes(48);
        const evidence = await attester.evidence(reportData, challengeFor(request, secret));

        const certificate = new X509Certificate(Buffer.from(text(evidence['ek_certificate']), 'base64'));
        const issuer = new X509Certificate(tpm.issuerCertificate);
        expect(certificate.verify(issuer.publicKey)).toBe(true);
        expect(issuer.verify(new X509Certificate(tpm.rootCertificate).publicKey)).toBe(true);

        const quote = object(evidence['tpm_quote']);
        const message = Buffer.from(text(quote['message']), 'base64');
        const signature = Buffer.from(text(quote['signature']), 'base64');
        // TPMT_SIGNATURE: ECDSA, SHA-256, then r and s as sized buffers.
        expect(signature.subarray(0, 4).toString('hex')).toBe('0018000b');
        const rLength = signature.readUInt16BE(4);
        const pad = (bytes: Buffer): Buffer => Buffer.concat([Buffer.alloc(32 - bytes.length), bytes]);
        const raw = Buffer.concat([pad(signature.subarray(6, 6 + rLength)), pad(signature.subarray(8 + rLength))]);
        const key = createPublicKey({
          key: Buffer.from(text(evidence['ak_public']), 'base64'),
          format: 'der',
          type: 'spki',
        });
        expect(verify('sha256', message, { key, dsaEncoding: 'ieee-p1363' }, raw)).toBe(true);

        expect(message.subarray(0, 6).toString('hex')).toBe('ff5443478018');
        const nameLength = message.readUInt16BE(6);
        expect(message.readUInt16BE(8 + nameLength)).toBe(32);
        expect(message.subarray(10 + nameLength, 42 + nameLength).equals(reportData.subarray(0, 32))).toBe(true);
        const pcrs = (quote['pcrs'] as string[]).map((hex) => Buffer.from(hex, 'hex'));
        expect(pcrs).toHaveLength(24);
        expect(message.subarray(-32).equals(createHash('sha256').update(Buffer.concat(pcrs)).digest())).toBe(true);

        expect(text(evidence['activated_secret'])).toBe(secret.toString('base64'));
        expect(text(evidence['ak_public_area'])).toBe(text(object(request['tpm'])['ak-public']));
        expect(text(evidence['event_log'])).toBe(log.toString('base64'));
        expect(text(evidence['kernel_command_line'])).toBe('quiet roothash=00');
        const attributes = Buffer.from(text(evidence['ak_public_area']), 'base64').readUInt32BE(4);
        expect(attributes & 0x10000).not.toBe(0); // restricted
        expect(attributes & 0x2).not.toBe(0); // fixedTPM
        expect(attributes & 0x20000).toBe(0); // no decryption
      });
    });

    it('G-05: refuses the credential of another TPM, so a foreign attestation key proves nothing', async () => {
      const foreign = await withAttester(otherSocket, (attester) => attester.prepare());
      await withAttester(socket, async (attester) => {
        const own = await attester.prepare();
        const secret = randomBytes(32);
        expect(await code(attester.evidence(Buffer.alloc(48), challengeFor(foreign, secret)))).toBe('EV_AK_UNTRUSTED');
        // Own EK, foreign AK: the credential opens only for the name it was made for.
        const mixed = { tpm: { ...object(own['tpm']), 'ak-public': text(object(foreign['tpm'])['ak-public']) } };
        expect(await code(attester.evidence(Buffer.alloc(48), challengeFor(mixed, secret)))).toBe('EV_AK_UNTRUSTED');
        // The session of a failed activation is gone: as many failures as one likes leave the TPM usable.
        for (let round = 0; round < 70; round++) {
          expect(await code(attester.evidence(Buffer.alloc(48), challengeFor(foreign, secret)))).toBe(
            'EV_AK_UNTRUSTED',
          );
        }
        const evidence = await attester.evidence(Buffer.alloc(48), challengeFor(own, secret));
        expect(text(evidence['activated_secret'])).toBe(secret.toString('base64'));
      });
    }, 60_000);

    it('leaves the secret out where the challenge has no credential, and refuses a malformed one', async () => {
      await withAttester(socket, async (attester) => {
        expect(Object.hasOwn(await attester.evidence(Buffer.alloc(48), ''), 'activated_secret')).toBe(false);
        const good = object(challengeFor(await attester.prepare(), randomBytes(32))['tpm']);
        const blob = Buffer.from(text(good['credential-blob']), 'base64');
        for (const bad of [
          {},
          { ...good, 'credential-blob': 1 },
          { ...good, 'credential-blob': 'AAA' },
          { ...good, 'credential-blob': '' },
        ]) {
          expect(await code(attester.evidence(Buffer.alloc(48), { tpm: bad }))).toBe('REQUEST_FORMAT');
        }
        // A length that would make the TPM read the next parameter from the middle of the blob.
        const short = Buffer.from(blob);
        short.writeUInt16BE(blob.length - 4);
        const tampered = { ...good, 'credential-blob': short.toString('base64') };
        expect(await code(attester.evidence(Buffer.alloc(48), { tpm: tampered }))).toBe('REQUEST_FORMAT');
        for (let at = 2; at < blob.length; at += 7) {
          const changed = Buffer.from(blob);
          changed[at] = (changed[at] ?? 0) ^ 1;
          const challenge = { tpm: { ...good, 'credential-blob': changed.toString('base64') } };
          expect(await code(attester.evidence(Buffer.alloc(48), challenge))).toBe('EV_AK_UNTRUSTED');
        }
      });
    });

    it('extends a PCR as SHA-256(old ‖ digest)', async () => {
      const client = new TpmClient(await connectTpmSocket(socket));
      const digest = createHash('sha256').update('initdata').digest();
      const before = (await client.readPcrs())[8] ?? Buffer.alloc(0);
      await client.extendPcr(8, digest);
      const after = (await client.readPcrs())[8] ?? Buffer.alloc(0);
      await client.close();
      expect(before.equals(Buffer.alloc(32))).toBe(true);
      expect(after.equals(createHash('sha256').update(before).update(digest).digest())).toBe(true);
    });

    it('stays usable however often the machine is switched off without a word', async () => {
      for (let boot = 0; boot < 8; boot++) {
        socket = await tpm.start();
        await withAttester(socket, async (attester) => {
          const secret = randomBytes(32);
          const evidence = await attester.evidence(Buffer.alloc(48), challengeFor(await attester.prepare(), secret));
          expect(text(evidence['activated_secret'])).toBe(secret.toString('base64'));
        });
      }
    });

    it('answers concurrent requests for evidence, each bound to its own data', async () => {
      await withAttester(socket, async (attester) => {
        const datas = Array.from({ length: 8 }, () => randomBytes(32));
        const evidences = await Promise.all(datas.map((data) => attester.evidence(data, '')));
        evidences.forEach((evidence, index) => {
          const message = Buffer.from(text(object(evidence['tpm_quote'])['message']), 'base64');
          expect(message.includes(datas[index] ?? Buffer.alloc(0))).toBe(true);
        });
      });
    });
  },
);

describe('TPM transport', () => {
  it('says that the TPM is missing', async () => {
    expect(await code(openTpmDevice('/nonexistent/tpmrm0'))).toBe('TEE_MISSING');
    expect(await code(connectTpmSocket('/nonexistent/tpm.sock'))).toBe('TEE_MISSING');
  });

  /** A TPM that answers from a list. */
  function scripted(...responses: readonly Buffer[]): { transport: TpmTransport; commands: Buffer[] } {
    const commands: Buffer[] = [];
    const left = [...responses];
    const transport: TpmTransport = {
      transmit: async (command) => {
        commands.push(Buffer.from(command));
        const next = left.shift();
        if (next === undefined) throw new Error('unexpected command');
        return next;
      },
      close: async () => undefined,
    };
    return { transport, commands };
  }

  it('repeats a command while the TPM says that it is busy', async () => {
    const busy = Buffer.from('80010000000a00000922', 'hex');
    const { transport, commands } = scripted(busy, busy, Buffer.from('80010000000a00000000', 'hex'));
    await new TpmClient(transport).flush(0x80000000);
    expect(commands.map((command) => command.toString('hex'))).toEqual(Array(3).fill('80010000000e0000016580000000'));
  });

  it('gives the response code of a refused command', async () => {
    const { transport } = scripted(Buffer.from('80010000000a000001c4', 'hex'));
    await expect(new TpmClient(transport).flush(1)).rejects.toThrow('response code 0x1c4');
  });

  it.each([['80010000000a'], ['80020000000e0000000000000020'], ['']])(
    'refuses the truncated response %j',
    async (hex) => {
      const { transport } = scripted(Buffer.from(hex, 'hex'));
      expect(await code(new TpmClient(transport).extendPcr(8, Buffer.alloc(32)))).toBe('EV_FORMAT');
    },
  );

  it('refuses a response that is too long or broken off', async () => {
    const path = join('/tmp', `sealpod-tpm-${process.pid}.sock`);
    const replies = [Buffer.from('8001ffffffff00000000', 'hex'), Buffer.from('80010000000a0000', 'hex')];
    const server: Server = createServer((peer) => {
      peer.once('data', () => peer.end(replies.shift() ?? ''));
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    try {
      for (let round = 0; round < 2; round++) {
        const transport = await connectTpmSocket(path);
        expect(await code(transport.transmit(Buffer.from('80010000000a0000017e', 'hex')))).toBe('TEE_MISSING');
        await transport.close();
      }
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
  });
});
