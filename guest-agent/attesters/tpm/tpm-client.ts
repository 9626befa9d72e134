import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { SealpodError } from '@sealpod/protocol/errors';
import {
  Algorithm,
  Curve,
  encodePcrSelection,
  encodePublicArea,
  Handle,
  ObjectAttribute,
  parsePcrSelection,
  pcrCount,
  sized,
  TpmReader,
  uint8,
  uint16,
  uint32,
} from '@sealpod/protocol/tpm';
import type { TpmTransport } from './transport.ts';

/** TPM_CC values in use (TPM 2.0 Library, part 2, §6.5.2). */
const commandCode = {
  createPrimary: 0x131,
  stirRandom: 0x146,
  activateCredential: 0x147,
  nvRead: 0x14e,
  policySecret: 0x151,
  quote: 0x158,
  flushContext: 0x165,
  nvReadPublic: 0x169,
  startAuthSession: 0x176,
  pcrRead: 0x17e,
  pcrExtend: 0x182,
} as const;

const tag = { noSessions: 0x8001, sessions: 0x8002 } as const;
const responseCode = { success: 0, retry: 0x922, yielded: 0x908, testing: 0x90a } as const;
const busyCodes: readonly number[] = [responseCode.retry, responseCode.yielded, responseCode.testing];
const maxAttempts = 100;
const retryDelayMs = 5;
const nvBlockBytes = 512;
const maxNvBytes = 16 * 1024;

const allPcrs = Array.from({ length: pcrCount }, (_, pcr) => pcr);

/**
 * Without dictionary attack protection: its password is empty, so there is nothing to guess, and a machine that is switched
 * off without TPM2_Shutdown would count as a guess each time, until the TPM locks itself.
 */
const attestationKeyAttributes =
  ObjectAttribute.fixedTpm |
  ObjectAttribute.fixedParent |
  ObjectAttribute.sensitiveDataOrigin |
  ObjectAttribute.userWithAuth |
  ObjectAttribute.noDictionaryAttack |
  ObjectAttribute.restricted |
  ObjectAttribute.sign;

/** An empty password authorisation. */
const emptyPassword = Buffer.concat([uint32(Handle.password), uint16(0), uint8(0), uint16(0)]);

/** A key that lives in the TPM. */
export interface LoadedKey {
  readonly handle: number;
  /** TPMT_PUBLIC as the TPM returned it. */
  readonly publicArea: Buffer;
}

export interface Quote {
  /** TPMS_ATTEST, the signed bytes. */
  readonly message: Buffer;
  /** TPMT_SIGNATURE. */
  readonly signature: Buffer;
}

/** A refusal by the TPM itself; `responseCode` is its TPM_RC. */
export class TpmResponseError extends SealpodError {
  readonly responseCode: number;

  constructor(command: string, code: number) {
    super('TEE_FAILED', `TPM command ${command} failed with response code 0x${code.toString(16)}`);
    this.responseCode = code;
  }
}

/** The few TPM 2.0 commands that attestation needs (TPM 2.0 Library, part 3). */
export class TpmClient {
  readonly #transport: TpmTransport;

  constructor(transport: TpmTransport) {
    this.#transport = transport;
  }

  /** The SHA-256 values of PCR 0 to 23. */
  async readPcrs(): Promise<Buffer[]> {
    const values = new Map<number, Buffer>();
    // A TPM answers as many as it likes (usually eight) and says which.
    while (values.size < pcrCount) {
      const missing = allPcrs.filter((pcr) => !values.has(pcr));
      const response = await this.#command('pcrRead', [], undefined, encodeSelection(missing));
      response.uint32(); // update counter
      const answered = parsePcrSelection(response).flatMap(({ hash, registers }) =>
        hash === Algorithm.sha256 ? registers : [],
      );
      const count = response.uint32();
      if (count === 0 || count !== answered.length) {
        throw new SealpodError('TEE_FAILED', 'the TPM has no SHA-256 bank', { expected: `PCR ${missing.join(', ')}` });
      }
      for (const pcr of answered) values.set(pcr, Buffer.from(response.sized()));
    }
    return allPcrs.map((pcr) => values.get(pcr) ?? Buffer.alloc(0));
  }

  /** Extends a PCR of the SHA-256 bank: new = SHA-256(old ‖ digest). */
  async extendPcr(pcr: number, digest: Uint8Array): Promise<void> {
    if (digest.length !== 32) throw new SealpodError('INTERNAL', `a SHA-256 digest has 32 bytes, not ${digest.length}`);
    const digests = Buffer.concat([uint32(1), uint16(Algorithm.sha256), digest]);
    await this.#command('pcrExtend', [pcr], [emptyPassword], digests);
  }

  /** The content of an NV index that the owner may read, e.g. an EK certificate. */
  async readNv(index: number): Promise<Buffer> {
    const described = await this.#command('nvReadPublic', [index], undefined, Buffer.alloc(0));
    const publicArea = new TpmReader(described.sized());
    publicArea.bytes(10); // nvIndex, nameAlg, attributes
    publicArea.sized(); // authPolicy
    const size = publicArea.uint16();
    if (size > maxNvBytes) throw new SealpodError('TEE_FAILED', `NV index 0x${index.toString(16)} has ${size} bytes`);
    const parts: Buffer[] = [];
    for (let offset = 0; offset < size; offset += nvBlockBytes) {
      const range = Buffer.concat([uint16(Math.min(nvBlockBytes, size - offset)), uint16(offset)]);
      const response = await this.#command('nvRead', [Handle.owner, index], [emptyPassword], range);
      parts.push(Buffer.from(response.sized()));
    }
    return Buffer.concat(parts);
  }

  /**
   * Creates the attestation key: ECC P-256, ECDSA with SHA-256, restricted (it signs only what the TPM itself made), as a
   * primary key of the endorsement hierarchy. Equal in every call on one TPM with equal `unique` bytes, because it derives from
   * the TPM's seed and the template that they stand in (TPM 2.0 Library, part 1, "Primary Seed Properties").
   */
  async createAttestationKey(unique: Buffer = Buffer.alloc(0)): Promise<LoadedKey> {
    const template = encodePublicArea({
      nameAlgorithm: Algorithm.sha256,
      attributes: attestationKeyAttributes,
      authPolicy: Buffer.alloc(0),
      scheme: { algorithm: Algorithm.ecDsa, hash: Algorithm.sha256 },
      key: { kind: 'ecc', curve: Curve.p256, x: unique, y: Buffer.alloc(0) },
    });
    const sensitive = sized(uint16(0), uint16(0));
    const parameters = Buffer.concat([sensitive, sized(template), uint16(0), uint32(0)]);
    const { response, handles } = await this.#commandWithHandle(
      'createPrimary',
      [Handle.endorsement],
      [emptyPassword],
      parameters,
    );
    return { handle: handles, publicArea: Buffer.from(response.sized()) };
  }

  /** Mixes bytes into the TPM's random numbers (TPM2_StirRandom), at most 128. */
  async stirRandom(bytes: Uint8Array): Promise<void> {
    await this.#command('stirRandom', [], undefined, sized(bytes));
  }

  /** Signs PCR 0 to 23 (SHA-256 bank) with `qualifyingData` inside. */
  async quote(key: LoadedKey, qualifyingData: Uint8Array): Promise<Quote> {
    const parameters = Buffer.concat([sized(qualifyingData), uint16(Algorithm.null), encodeSelection(allPcrs)]);
    const response = await this.#command('quote', [key.handle], [emptyPassword], parameters);
    return { message: Buffer.from(response.sized()), signature: Buffer.from(response.rest()) };
  }

  /**
   * Opens a credential: succeeds only where `key` and the endorsement key live in this TPM, which is the proof.
   *
   * @param credentialBlob TPM2B_ID_OBJECT with its length
   * @param encryptedSecret TPM2B_ENCRYPTED_SECRET with its length
   * @throws SealpodError EV_AK_UNTRUSTED where the credential was not made for this pair
   */
  async activateCredential(
    key: LoadedKey,
    endorsementKeyHandle: number,
    credentialBlob: Uint8Array,
    encryptedSecret: Uint8Array,
  ): Promise<Buffer> {
    // The default EK template authorises by PolicySecret(endorsement hierarchy), whose password is empty.
    const session = await this.#startPolicySession();
    try {
      const empty = Buffer.concat([uint16(0), uint16(0), uint16(0), uint32(0)]);
      await this.#command('policySecret', [Handle.endorsement, session], [emptyPassword], empty);
      const policy = Buffer.concat([uint32(session), uint16(0), uint8(1), uint16(0)]);
      const parameters = Buffer.concat([credentialBlob, encryptedSecret]);
      const handles = [key.handle, endorsementKeyHandle];
      const response = await this.#command('activateCredential', handles, [emptyPassword, policy], parameters);
      return Buffer.from(response.sized());
    } catch (cause) {
      if (!(cause instanceof TpmResponseError)) throw cause;
      throw new SealpodError('EV_AK_UNTRUSTED', 'the TPM refuses the credential of the challenge', {
        cause,
        actual: cause.message,
      });
    } finally {
      await this.flush(session);
    }
  }

  /** Removes a transient key or a session from the TPM. */
  async flush(loaded: number): Promise<void> {
    await this.#command('flushContext', [], undefined, uint32(loaded));
  }

  async close(): Promise<void> {
    await this.#transport.close();
  }

  async #startPolicySession(): Promise<number> {
    const parameters = Buffer.concat([
      sized(randomBytes(32)),
      uint16(0), // encryptedSalt
      uint8(1), // TPM_SE_POLICY
      uint16(Algorithm.null),
      uint16(Algorithm.sha256),
    ]);
    return (await this.#command('startAuthSession', [Handle.null, Handle.null], undefined, parameters)).uint32();
  }

  /** Runs a command that returns a handle before its parameters. */
  async #commandWithHandle(
    name: keyof typeof commandCode,
    handles: readonly number[],
    sessions: readonly Buffer[],
    parameters: Buffer,
  ): Promise<{ response: TpmReader; handles: number }> {
    const body = await this.#transmit(name, handles, sessions, parameters);
    const returned = body.uint32();
    return { response: new TpmReader(body.bytes(body.uint32())), handles: returned };
  }

  async #command(
    name: keyof typeof commandCode,
    handles: readonly number[],
    sessions: readonly Buffer[] | undefined,
    parameters: Buffer,
  ): Promise<TpmReader> {
    const body = await this.#transmit(name, handles, sessions, parameters);
    return sessions === undefined ? body : new TpmReader(body.bytes(body.uint32()));
  }

  async #transmit(
    name: keyof typeof commandCode,
    handles: readonly number[],
    sessions: readonly Buffer[] | undefined,
    parameters: Buffer,
  ): Promise<TpmReader> {
    const authorisations = sessions === undefined ? [] : [uint32(Buffer.concat([...sessions]).length), ...sessions];
    const body = Buffer.concat([...handles.map(uint32), ...authorisations, parameters]);
    const head = [
      uint16(sessions === undefined ? tag.noSessions : tag.sessions),
      uint32(10 + body.length),
      uint32(commandCode[name]),
    ];
    const command = Buffer.concat([...head, body]);
    for (let attempt = 1; ; attempt++) {
      const reader = new TpmReader(await this.#transport.transmit(command), 'TPM response');
      reader.bytes(6); // tag and length: the transport delivers exactly one response
      const code = reader.uint32();
      if (code === responseCode.success) return reader;
      if (!busyCodes.includes(code) || attempt >= maxAttempts) throw new TpmResponseError(name, code);
      await delay(retryDelayMs);
    }
  }
}

function encodeSelection(pcrs: readonly number[]): Buffer {
  return encodePcrSelection([{ hash: Algorithm.sha256, registers: pcrs }]);
}
