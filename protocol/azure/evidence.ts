import { SealpodError } from '../errors.ts';
import {
  asJsonObject,
  decodeBase64Url,
  decodeHex,
  integerMember,
  type JsonObject,
  type JsonValue,
  objectMember,
  optionalMember,
  stringArrayMember,
  stringMember,
} from '../json/index.ts';

/** Evidence of an Azure confidential VM, of any version. Nothing is verified. */
export interface AzureVtpmEvidence {
  /** 0 where the evidence names none. From 2 on the HCL report repeats the report data. */
  readonly version: 0 | 1 | 2;
  /** A signature of the RSASSA scheme with SHA-256, a TPMS_ATTEST, and register values of the SHA-256 bank. */
  readonly quote: { readonly signature: Buffer; readonly message: Buffer; readonly pcrs: readonly Buffer[] };
  readonly hclReport: Buffer;
  /** What is beside: the certificate of the VCEK (`vcek`, DER or PEM), or the quote of the TD (`td_quote`). */
  readonly hardware: Buffer;
}

const limits = { signature: 1024, message: 2048, hclReport: 64 * 1024, hardware: 64 * 1024 } as const;
const maxRegisters = 24;
const code = 'EV_FORMAT';

/**
 * Reads evidence of TEEs `az-snp-vtpm` (`hardwareMember` `vcek`) and `az-tdx-vtpm` (`td_quote`): version 0 has arrays of
 * bytes, versions 1 and 2 text (trustee: az-snp-vtpm, az-tdx-vtpm).
 *
 * @throws SealpodError EV_FORMAT naming the member, REQUEST_TOO_LARGE
 */
export function parseAzureVtpmEvidence(evidence: JsonValue, hardwareMember: 'vcek' | 'td_quote'): AzureVtpmEvidence {
  const root = asJsonObject(evidence, 'evidence', code);
  if (optionalMember(root, 'version') === undefined) return parseVersion0(root, hardwareMember);
  const version = integerMember(root, 'version', code);
  if (version !== 1 && version !== 2)
    throw new SealpodError(code, 'unknown version of the evidence', { expected: '1 or 2', actual: `${version}` });
  const quote = objectMember(root, 'tpm_quote', code);
  const hex = (name: 'signature' | 'message'): Buffer =>
    decodeHex(stringMember(quote, name, code), { what: name, maxBytes: limits[name], code });
  // Upstream writes the padding, and reads text without it too.
  const base64 = (name: string, maxBytes: number): Buffer =>
    decodeBase64Url(stringMember(root, name, code).replace(/={1,2}$/, ''), { what: name, maxBytes, code });
  return {
    version,
    quote: {
      signature: hex('signature'),
      message: hex('message'),
      pcrs: stringArrayMember(quote, 'pcrs', code).map((text, index) =>
        register(decodeHex(text, { what: `pcrs[${index}]`, maxBytes: 32, code }), index),
      ),
    },
    hclReport: base64('hcl_report', limits.hclReport),
    hardware: base64(hardwareMember, limits.hardware),
  };
}

/** Members of version 0, which differ between the two TEEs. */
const version0 = {
  vcek: { quote: 'quote', hclReport: 'report' },
  td_quote: { quote: 'tpm_quote', hclReport: 'hcl_report' },
} as const;

function parseVersion0(root: JsonObject, hardwareMember: 'vcek' | 'td_quote'): AzureVtpmEvidence {
  const names = version0[hardwareMember];
  const quote = objectMember(root, names.quote, code);
  const pcrs = optionalMember(quote, 'pcrs');
  if (!Array.isArray(pcrs)) throw new SealpodError(code, 'pcrs must be an array');
  return {
    version: 0,
    quote: {
      signature: byteArray(optionalMember(quote, 'signature'), 'signature', limits.signature),
      message: byteArray(optionalMember(quote, 'message'), 'message', limits.message),
      pcrs: pcrs.map((value: JsonValue, index) => register(byteArray(value, `pcrs[${index}]`, 32), index)),
    },
    hclReport: byteArray(optionalMember(root, names.hclReport), names.hclReport, limits.hclReport),
    hardware:
      hardwareMember === 'vcek'
        ? Buffer.from(stringMember(root, 'vcek', code), 'latin1')
        : byteArray(optionalMember(root, 'td_quote'), 'td_quote', limits.hardware),
  };
}

function register(bytes: Buffer, index: number): Buffer {
  if (bytes.length !== 32 || index >= maxRegisters) {
    throw new SealpodError(code, 'malformed registers', {
      expected: `at most ${maxRegisters} of 32 bytes`,
      actual: `number ${index + 1} of ${bytes.length} bytes`,
    });
  }
  return bytes;
}

function byteArray(value: JsonValue | undefined, what: string, maxBytes: number): Buffer {
  if (!Array.isArray(value) || value.length > maxBytes)
    throw new SealpodError(code, `${what} must be an array of at most ${maxBytes} bytes`);
  if (!value.every((byte: JsonValue) => typeof byte === 'number' && Number.isInteger(byte) && byte >= 0 && byte <= 255))
    throw new SealpodError(code, `${what} has an item that is no byte`);
  return Buffer.from(value as readonly number[]);
}
