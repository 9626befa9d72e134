import { SealpodError } from '../errors.ts';
import { type OpaqueData, parseOpaqueData } from './opaque-data.ts';
import { SpdmReader } from './reader.ts';

/** Bytes of the request at the front of a report. */
const requestBytes = 37;
const nonceBytes = 32;
const signatureBytes = 96;

/** SPDM 1.1, the version that NVIDIA's devices speak. */
export const spdmVersion = 0x11;
/** Request code GET_MEASUREMENTS and response code MEASUREMENTS (DSP0274, tables 4 and 5). */
export const spdmCodes = { getMeasurements: 0xe0, measurements: 0x60 } as const;

/** One measurement (DSP0274, table 46): `type` bit 7 says that the value is raw and no digest. */
export interface Measurement {
  readonly type: number;
  readonly value: Buffer;
}

/**
 * An attestation report of an NVIDIA GPU or switch: the SPDM request GET_MEASUREMENTS and the response MEASUREMENTS to it,
 * as DSP0274 1.1.1 lays them out. Nothing is verified. Buffers share the memory of the report.
 */
export interface NvidiaReport {
  readonly request: {
    readonly version: number;
    readonly code: number;
    /** Param1: bit 0 asks for a signature. */
    readonly attributes: number;
    /** Param2: which measurement; 255 is all. */
    readonly operation: number;
    readonly nonce: Buffer;
    readonly slot: number;
  };
  readonly response: {
    readonly version: number;
    readonly code: number;
    readonly slot: number;
    /** By index, from 1. */
    readonly measurements: ReadonlyMap<number, Measurement>;
    readonly nonce: Buffer;
    readonly opaqueData: OpaqueData;
  };
  /** The bytes that the signature covers: both messages without the signature. */
  readonly signed: Buffer;
  /** R and S, big-endian, 48 bytes each. */
  readonly signature: Buffer;
}

/**
 * Parses a report. Bytes after the signature are left out of account, as the driver's buffer may be longer than the report.
 *
 * @throws SealpodError EV_FORMAT
 */
export function parseNvidiaReport(report: Uint8Array): NvidiaReport {
  const bytes = Buffer.from(report.buffer, report.byteOffset, report.byteLength);
  const reader = new SpdmReader(bytes, 'NVIDIA report');
  const request = readRequest(new SpdmReader(reader.bytes(requestBytes), 'SPDM request'));
  const version = reader.integer(1);
  const code = reader.integer(1);
  reader.bytes(1);
  const slot = reader.integer(1) & 0x0f;
  const blocks = reader.integer(1);
  const record = reader.bytes(reader.integer(3));
  const measurements = readMeasurements(record, blocks);
  const nonce = reader.bytes(nonceBytes);
  const opaqueData = parseOpaqueData(reader.bytes(reader.integer(2)));
  const signed = bytes.subarray(0, reader.position);
  const signature = reader.bytes(signatureBytes);
  return { request, response: { version, code, slot, measurements, nonce, opaqueData }, signed, signature };
}

function readRequest(reader: SpdmReader): NvidiaReport['request'] {
  return {
    version: reader.integer(1),
    code: reader.integer(1),
    attributes: reader.integer(1),
    operation: reader.integer(1),
    nonce: reader.bytes(nonceBytes),
    slot: reader.integer(1) & 0x0f,
  };
}

/** Measurement specification 1: the value is laid out as DMTF has it. */
const dmtfSpecification = 1;

function readMeasurements(record: Buffer, blocks: number): Map<number, Measurement> {
  const reader = new SpdmReader(record, 'SPDM measurement record');
  const measurements = new Map<number, Measurement>();
  for (let block = 0; block < blocks; block += 1) {
    const index = reader.integer(1);
    const specification = reader.integer(1);
    const content = new SpdmReader(reader.bytes(reader.integer(2)), 'SPDM measurement');
    const type = content.integer(1);
    const value = content.bytes(content.integer(2));
    content.end();
    if (specification !== dmtfSpecification || index === 0 || measurements.has(index))
      throw new SealpodError('EV_FORMAT', 'malformed SPDM measurement record', {
        expected: 'DMTF measurements, each index once, from 1',
        actual: `index ${index}, specification ${specification}`,
      });
    measurements.set(index, { type, value });
  }
  reader.end();
  return measurements;
}
