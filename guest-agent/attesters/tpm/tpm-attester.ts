import { createHash, randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { SealpodError } from '@sealpod/protocol/errors';
import { decodeBase64, type JsonObject, type JsonValue } from '@sealpod/protocol/json';
import { regularise } from '@sealpod/protocol/rcar';
import {
  Handle,
  parseAttest,
  parsePublicArea,
  parseQuoteInfo,
  publicAreaKey,
  type TpmEvidence,
  TpmReader,
} from '@sealpod/protocol/tpm';
import type { Attester } from '../attester.ts';
import { type LoadedKey, type Quote, TpmClient } from './tpm-client.ts';
import type { TpmTransport } from './transport.ts';

/** Width of the qualifying data: upstream's rule for a bare TPM cuts the runtime-data digest to it. */
const qualifyingDataBytes = 32;
const maxEventLogBytes = 1 << 20;
const maxQuoteAttempts = 5;
/** Width of a coordinate of the attestation key's curve. */
const uniqueBytes = 32;

export interface TpmAttesterOptions {
  /** Opened at the first use, so that boot need not wait for the TPM. */
  readonly transport: () => Promise<TpmTransport>;
  /** The TCG2 event log; read once, when the first evidence is made. */
  readonly eventLog?: () => Promise<Buffer>;
  /** The kernel command line as it was measured. */
  readonly kernelCommandLine?: () => Promise<string>;
  /** Other machines have a TPM with the same seeds and the same state: the attestation key is made to be this one's alone. */
  readonly cloned?: boolean;
}

interface Prepared {
  readonly client: TpmClient;
  readonly key: LoadedKey;
  readonly endorsementCertificate: Buffer;
}

/**
 * Attester of a (virtual) TPM: a quote over PCR 0 to 23 by a key that lives in the same TPM as the endorsement key, with
 * the event log that explains the PCRs.
 */
export function createTpmAttester(options: TpmAttesterOptions): Attester {
  const eventLog = options.eventLog ?? (() => readFile('/sys/kernel/security/tpm0/binary_bios_measurements'));
  const commandLine = options.kernelCommandLine ?? readKernelCommandLine;
  let prepared: Promise<Prepared> | undefined;

  function prepare(): Promise<Prepared> {
    prepared ??= prepareTpm(options).catch((cause) => {
      prepared = undefined;
      throw cause;
    });
    return prepared;
  }

  return {
    tee: 'tpm',
    prepare: async () => {
      const { key, endorsementCertificate } = await prepare();
      return {
        tpm: {
          'ek-certificate': endorsementCertificate.toString('base64'),
          'ak-public': key.publicArea.toString('base64'),
        },
      };
    },
    identify: async () => (await prepare()).key.publicArea,
    prove: async (qualifyingData, { credentialBlob, encryptedSecret }) => {
      const { client, key } = await prepare();
      const secret = await client.activateCredential(key, Handle.ekRsa2048, credentialBlob, encryptedSecret);
      const { message, signature } = await client.quote(key, qualifyingData);
      return { secret, quote: message, signature };
    },
    evidence: async (reportData, challenge) => {
      const { client, key, endorsementCertificate } = await prepare();
      const activatedSecret = await activate(client, key, challenge);
      const { quote, pcrs } = await quoteWithPcrs(client, key, regularise(reportData, qualifyingDataBytes));
      const log = await eventLog();
      if (log.length > maxEventLogBytes) throw new SealpodError('TEE_FAILED', `the event log has ${log.length} bytes`);
      const evidence: TpmEvidence & JsonObject = {
        ak_public: publicAreaKey(parsePublicArea(key.publicArea))
          .export({ type: 'spki', format: 'der' })
          .toString('base64'),
        tpm_quote: {
          signature: quote.signature.toString('base64'),
          message: quote.message.toString('base64'),
          pcrs: pcrs.map((pcr) => pcr.toString('hex')),
        },
        ak_public_area: key.publicArea.toString('base64'),
        ek_certificate: endorsementCertificate.toString('base64'),
        ...(activatedSecret === undefined ? {} : { activated_secret: activatedSecret.toString('base64') }),
        event_log: log.toString('base64'),
        kernel_command_line: await commandLine(),
      };
      return evidence;
    },
    close: async () => {
      const taken = prepared;
      prepared = undefined;
      if (taken === undefined) return;
      const made = await taken.catch(() => undefined);
      if (made === undefined) return;
      const { client, key } = made;
      // The kernel's resource manager would flush at close; a TPM without one would keep the key.
      await client.flush(key.handle);
      await client.close();
    },
  };
}

async function prepareTpm({ transport, cloned }: TpmAttesterOptions): Promise<Prepared> {
  const client = new TpmClient(await transport());
  try {
    const endorsementCertificate = trimDer(await client.readNv(Handle.ekCertificateRsa2048));
    if (cloned !== true) return { client, key: await client.createAttestationKey(), endorsementCertificate };
    await client.stirRandom(randomBytes(uniqueBytes));
    return { client, key: await client.createAttestationKey(randomBytes(uniqueBytes)), endorsementCertificate };
  } catch (cause) {
    await client.close();
    throw cause;
  }
}

/** An NV index may be larger than the certificate in it: keeps the outer DER SEQUENCE only. */
function trimDer(content: Buffer): Buffer {
  const reader = new TpmReader(content, 'endorsement key certificate');
  if (reader.uint8() !== 0x30) throw new SealpodError('TEE_FAILED', 'the TPM holds no endorsement key certificate');
  const first = reader.uint8();
  if (first < 0x80) return content.subarray(0, 2 + first);
  const lengthBytes = first & 0x7f;
  if (lengthBytes < 1 || lengthBytes > 2)
    throw new SealpodError('TEE_FAILED', 'the endorsement key certificate is malformed');
  return content.subarray(0, 2 + lengthBytes + reader.bytes(lengthBytes).readUIntBE(0, lengthBytes));
}

/** Opens the credential of the challenge where it has one; a broker without credential activation sends none. */
async function activate(client: TpmClient, key: LoadedKey, challenge: JsonValue): Promise<Buffer | undefined> {
  const credential = member(challenge, 'tpm');
  if (credential === undefined) return undefined;
  return client.activateCredential(
    key,
    Handle.ekRsa2048,
    sizedBytes(member(credential, 'credential-blob'), 'credential-blob'),
    sizedBytes(member(credential, 'encrypted-secret'), 'encrypted-secret'),
  );
}

function member(value: JsonValue | undefined, name: string): JsonValue | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  return Object.hasOwn(value, name) ? (value as JsonObject)[name] : undefined;
}

/** Decodes a base64 TPM2B and checks its length, so that nothing of the network is read by the TPM as another parameter. */
function sizedBytes(value: JsonValue | undefined, name: string): Buffer {
  if (typeof value !== 'string') throw new SealpodError('REQUEST_FORMAT', `the challenge has no ${name}`);
  const bytes = decodeBase64(value, { what: name, maxBytes: 1024 });
  if (bytes.length < 2 || bytes.readUInt16BE() !== bytes.length - 2) {
    throw new SealpodError('REQUEST_FORMAT', `${name} of the challenge is no sized TPM buffer`);
  }
  return bytes;
}

/** Quotes and reads the PCRs; repeats where a PCR was extended between the two, so that they always fit together. */
async function quoteWithPcrs(
  client: TpmClient,
  key: LoadedKey,
  data: Buffer,
): Promise<{ quote: Quote; pcrs: Buffer[] }> {
  for (let attempt = 1; attempt <= maxQuoteAttempts; attempt++) {
    const pcrs = await client.readPcrs();
    const quote = await client.quote(key, data);
    const { pcrDigest } = parseQuoteInfo(parseAttest(quote.message).attested);
    if (createHash('sha256').update(Buffer.concat(pcrs)).digest().equals(pcrDigest)) return { quote, pcrs };
  }
  throw new SealpodError('TEE_FAILED', 'the PCRs changed during every quote');
}

/** The command line without the newline that procfs adds. */
async function readKernelCommandLine(): Promise<string> {
  return (await readFile('/proc/cmdline', 'utf8')).replace(/\n$/, '');
}
