import { SealpodError } from '../errors.ts';
import { type QeCertification, readOuterCertification, readQeCertification } from './certification-data.ts';
import { type EnclaveReport, enclaveReportBytes, readEnclaveReport } from './enclave-report.ts';
import { QuoteReader } from './reader.ts';
import { readTdReport, type TdReport, tdReportBytes } from './td-report.ts';

/** The first 48 bytes of a quote. */
export interface QuoteHeader {
  readonly version: 3 | 4 | 5;
  /** 2: ECDSA over P-256. */
  readonly attestationKeyType: number;
  /** 0 SGX, 0x81 TDX. */
  readonly teeType: number;
  /** Versions of QE and PCE in quotes of SGX, else reserved. */
  readonly reserved: Buffer;
  readonly vendorId: Buffer;
  readonly userData: Buffer;
  readonly raw: Buffer;
}

/**
 * A quote of Intel's quoting enclave of version 3, 4 or 5 (SGX ECDSA QuoteLib API; TDX DCAP quote library API) as its bytes
 * say it. Nothing is verified: neither a signature, nor that the fields make sense.
 */
export interface Quote {
  readonly header: QuoteHeader;
  readonly body:
    | { readonly tee: 'sgx'; readonly report: EnclaveReport }
    | { readonly tee: 'tdx'; readonly report: TdReport };
  /** Type and size of the body in quotes of version 5, six bytes as they are. */
  readonly descriptor?: Buffer;
  /** The bytes that the attestation key signed. */
  readonly signed: Buffer;
  /** r and s, 64 bytes. */
  readonly signature: Buffer;
  /** x and y of a point of P-256, 64 bytes. */
  readonly attestationKey: Buffer;
  readonly qe: QeCertification;
}

export const quoteHeaderBytes = 48;
const maxQuoteBytes = 64 * 1024;
const ecdsaP256 = 2;
const teeTypes: Readonly<Record<number, 'sgx' | 'tdx'>> = { 0: 'sgx', 129: 'tdx' };
/** Types of the body in quotes of version 5. */
const bodyTypes: Readonly<Record<number, 'sgx' | TdReport['version']>> = { 1: 'sgx', 2: '1.0', 3: '1.5', 4: '1.5ex' };

/**
 * Parses a quote. Bytes behind it are left alone, as Intel's library does: quotes come padded from some interfaces, and
 * nothing signs the padding.
 *
 * @throws SealpodError EV_FORMAT, also for attestation keys that are not of P-256; REQUEST_TOO_LARGE
 */
export function parseQuote(quote: Uint8Array): Quote {
  if (quote.length > maxQuoteBytes) {
    throw new SealpodError('REQUEST_TOO_LARGE', 'the quote is too large', {
      expected: `at most ${maxQuoteBytes} bytes`,
      actual: `${quote.length}`,
    });
  }
  const bytes = Buffer.from(quote.buffer, quote.byteOffset, quote.byteLength);
  const reader = new QuoteReader(bytes, 'quote');
  const header = readHeader(reader);
  const descriptor = header.version === 5 ? bytes.subarray(quoteHeaderBytes, quoteHeaderBytes + 6) : undefined;
  const body = readBody(reader, header);
  const signed = bytes.subarray(0, reader.position);
  const section = new QuoteReader(reader.bytes(reader.uint32()), 'signature of a quote');
  const signature = section.bytes(64);
  const attestationKey = section.bytes(64);
  const qe = header.version === 3 ? readQeCertification(section) : readOuterCertification(section);
  return {
    header,
    body,
    ...(descriptor === undefined ? {} : { descriptor }),
    signed,
    signature,
    attestationKey,
    qe,
  };
}

function readHeader(reader: QuoteReader): QuoteHeader {
  const raw = reader.bytes(quoteHeaderBytes);
  const fields = new QuoteReader(raw, 'header of a quote');
  const version = fields.uint16();
  if (version !== 3 && version !== 4 && version !== 5) {
    throw new SealpodError('EV_FORMAT', 'unknown version of a quote', { expected: '3, 4 or 5', actual: `${version}` });
  }
  const attestationKeyType = fields.uint16();
  if (attestationKeyType !== ecdsaP256) {
    throw new SealpodError('EV_FORMAT', 'unsupported attestation key of a quote', {
      expected: `${ecdsaP256} (ECDSA over P-256)`,
      actual: `${attestationKeyType}`,
    });
  }
  return {
    version,
    attestationKeyType,
    teeType: fields.uint32(),
    reserved: fields.bytes(4),
    vendorId: fields.bytes(16),
    userData: fields.bytes(20),
    raw,
  };
}

function readBody(reader: QuoteReader, { version, teeType }: QuoteHeader): Quote['body'] {
  // Version 3 has reserved bytes where later ones name the TEE.
  const tee = version === 3 ? 'sgx' : teeTypes[teeType];
  if (tee === undefined) throw reader.fail(`unknown TEE type ${teeType}`);
  const kind = version === 5 ? readDescriptor(reader) : tee === 'sgx' ? 'sgx' : '1.0';
  if ((kind === 'sgx') !== (tee === 'sgx')) throw reader.fail('its body is not of the TEE that the header names');
  return kind === 'sgx'
    ? { tee: 'sgx', report: readEnclaveReport(reader) }
    : { tee: 'tdx', report: readTdReport(reader, kind) };
}

function readDescriptor(reader: QuoteReader): 'sgx' | TdReport['version'] {
  const type = reader.uint16();
  const size = reader.uint32();
  const kind = bodyTypes[type];
  if (kind === undefined) throw reader.fail(`unknown type ${type} of the body`);
  const expected = kind === 'sgx' ? enclaveReportBytes : tdReportBytes[kind];
  if (size !== expected) throw reader.fail(`a body of ${size} bytes, not ${expected}`);
  return kind;
}
