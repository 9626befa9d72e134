import { SealpodError } from '../errors.ts';
import {
  asJsonObject,
  decodeBase64,
  decodeHex,
  type JsonObject,
  type JsonValue,
  objectMember,
  optionalMember,
  stringArrayMember,
  stringMember,
} from '../json/index.ts';

/**
 * Evidence of TEE `tpm` on the wire: upstream's `ak_public` and `tpm_quote`, and our members, which prove the key and
 * explain the registers. Base64 is the standard alphabet with padding.
 */
export interface TpmEvidence {
  /** SubjectPublicKeyInfo, DER. */
  readonly ak_public: string;
  readonly tpm_quote: {
    /** TPMT_SIGNATURE. */
    readonly signature: string;
    /** TPMS_ATTEST. */
    readonly message: string;
    /** 24 SHA-256 registers, hex. */
    readonly pcrs: readonly string[];
  };
  /** TPMT_PUBLIC. */
  readonly ak_public_area?: string;
  /** X.509, DER. */
  readonly ek_certificate?: string;
  /** 32 bytes released by TPM2_ActivateCredential. */
  readonly activated_secret?: string;
  /** TCG2 crypto-agile log (binary_bios_measurements). */
  readonly event_log?: string;
  /** Text of /proc/cmdline. */
  readonly kernel_command_line?: string;
}

/** {@link TpmEvidence} decoded. Nothing in it is verified. */
export interface ParsedTpmEvidence {
  readonly akPublic: Buffer;
  readonly quote: { readonly signature: Buffer; readonly message: Buffer; readonly pcrs: readonly Buffer[] };
  readonly akPublicArea?: Buffer;
  readonly ekCertificate?: Buffer;
  readonly activatedSecret?: Buffer;
  readonly eventLog?: Buffer;
  readonly kernelCommandLine?: string;
}

/** Registers of a PC client TPM. */
export const pcrCount = 24;

/** Largest decoded sizes in bytes (text: UTF-16 units). */
const limits = {
  ak_public: 2048,
  signature: 1100,
  message: 2048,
  ak_public_area: 2048,
  ek_certificate: 8192,
  activated_secret: 64,
  event_log: 512 * 1024,
  kernel_command_line: 4096,
} as const;

/** @throws SealpodError EV_FORMAT, REQUEST_TOO_LARGE. Unknown members are refused: nothing may stand beside what is verified. */
export function parseTpmEvidence(evidence: JsonValue): ParsedTpmEvidence {
  const root = asJsonObject(evidence, 'tpm evidence', code);
  refuseUnknown(root, [
    ...Object.keys(limits).filter((name) => name !== 'signature' && name !== 'message'),
    'tpm_quote',
  ]);
  const quote = objectMember(root, 'tpm_quote', code);
  refuseUnknown(quote, ['signature', 'message', 'pcrs']);
  const pcrs = stringArrayMember(quote, 'pcrs', code);
  if (pcrs.length !== pcrCount) {
    throw new SealpodError(code, 'wrong number of registers', { expected: `${pcrCount}`, actual: `${pcrs.length}` });
  }
  const akPublicArea = optionalBytes(root, 'ak_public_area');
  const ekCertificate = optionalBytes(root, 'ek_certificate');
  const activatedSecret = optionalBytes(root, 'activated_secret');
  const eventLog = optionalBytes(root, 'event_log');
  const kernelCommandLine = optionalText(root, 'kernel_command_line');
  return {
    akPublic: requiredBytes(root, 'ak_public'),
    quote: {
      signature: requiredBytes(quote, 'signature'),
      message: requiredBytes(quote, 'message'),
      pcrs: pcrs.map((text, index) => register(text, index)),
    },
    ...(akPublicArea === undefined ? {} : { akPublicArea }),
    ...(ekCertificate === undefined ? {} : { ekCertificate }),
    ...(activatedSecret === undefined ? {} : { activatedSecret }),
    ...(eventLog === undefined ? {} : { eventLog }),
    ...(kernelCommandLine === undefined ? {} : { kernelCommandLine }),
  };
}

const code = 'EV_FORMAT';

function refuseUnknown(object: JsonObject, known: readonly string[]): void {
  const unknown = Object.keys(object).find((name) => !known.includes(name));
  if (unknown !== undefined) {
    throw new SealpodError(code, 'tpm evidence has an unknown member', { expected: known.join(', '), actual: unknown });
  }
}

function requiredBytes(object: JsonObject, name: keyof typeof limits): Buffer {
  return decodeBase64(stringMember(object, name, code), { what: name, maxBytes: limits[name], code });
}

function optionalBytes(object: JsonObject, name: keyof typeof limits): Buffer | undefined {
  return optionalMember(object, name) === undefined ? undefined : requiredBytes(object, name);
}

function optionalText(object: JsonObject, name: 'kernel_command_line'): string | undefined {
  if (optionalMember(object, name) === undefined) return undefined;
  const text = stringMember(object, name, code);
  if (text.length > limits[name]) throw new SealpodError('REQUEST_TOO_LARGE', `${name} is too large`);
  return text;
}

function register(text: string, index: number): Buffer {
  const bytes = decodeHex(text, { what: `pcrs[${index}]`, maxBytes: 32, code });
  if (bytes.length !== 32) throw new SealpodError(code, `pcrs[${index}] is not a SHA-256 register`);
  return bytes;
}
