import { SealpodError } from '../errors.ts';
import {
  asJsonObject,
  asJsonOctets,
  asJsonText,
  decodeBase64,
  integerMember,
  type JsonValue,
  objectMember,
  optionalMember,
} from '../json/index.ts';
import type { HygonCertificate } from './certificate.ts';
import { readHygonAuthority, readHygonKey } from './certificate-json.ts';
import { type CsvReport, csvPageBytes, parseCsvReport } from './csv-report.ts';

const code = 'EV_FORMAT';
const maxLogBytes = 1024 * 1024;

/** Certificates of the chip's key and of the key that signed it. */
export interface HygonChipChain {
  readonly hsk: HygonCertificate;
  readonly cek: HygonCertificate;
}

/** Evidence of TEE `csv`, completely parsed. Nothing in it is verified. */
export interface CsvEvidence {
  readonly report: CsvReport;
  /** Undefined where the guest did not fetch it. */
  readonly chipChain?: HygonChipChain;
  readonly pek: HygonCertificate;
  /** The chip's serial number, which nothing in the evidence signs. */
  readonly serialNumber: string;
  readonly eventLog?: Buffer;
}

/**
 * Reads `{"attestation_report": {"data", "magic", "flags"}, "cert_chain": {"hsk_cek"?: {"hsk", "cek"}, "pek"},
 * "serial_number", "cc_eventlog"?}` (trustee: csv).
 *
 * @throws SealpodError EV_FORMAT naming the member, REQUEST_TOO_LARGE
 */
export function parseCsvEvidence(evidence: JsonValue): CsvEvidence {
  const root = asJsonObject(evidence, 'csv evidence', code);
  const wrapper = objectMember(root, 'attestation_report', code);
  const octets = (name: string, length: number): Buffer =>
    asJsonOctets(optionalMember(wrapper, name), name, { least: length, most: length, code });
  const chain = objectMember(root, 'cert_chain', code);
  const sent = optionalMember(chain, 'hsk_cek') ?? null;
  const log = optionalMember(root, 'cc_eventlog') ?? null;
  return {
    report: parseCsvReport(octets('data', csvPageBytes), octets('magic', 16), integerMember(wrapper, 'flags', code)),
    ...(sent === null ? {} : { chipChain: readChipChain(sent) }),
    pek: readHygonKey(optionalMember(chain, 'pek'), 'pek'),
    serialNumber: hygonSerialNumber(
      asJsonOctets(optionalMember(root, 'serial_number'), 'serial_number', { most: 64, code }),
    ),
    ...(log === null
      ? {}
      : {
          eventLog: decodeBase64(asJsonText(log, 'cc_eventlog', code), {
            what: 'cc_eventlog',
            maxBytes: maxLogBytes,
            code,
          }),
        }),
  };
}

/**
 * Text of a serial number without the zeros after it. It becomes part of a path and of a URL, so that nothing but letters,
 * digits, `-` and `_` may stand in it.
 *
 * @throws SealpodError EV_FORMAT
 */
export function hygonSerialNumber(bytes: Buffer): string {
  const text = bytes.toString('latin1').replace(/\0+$/, '');
  if (!/^[0-9A-Za-z_-]{1,64}$/.test(text)) {
    throw new SealpodError(code, 'the serial number of the chip is malformed', {
      expected: 'letters, digits, `-` and `_`, then zeros',
      actual: bytes.toString('hex').slice(0, 128),
    });
  }
  return text;
}

function readChipChain(value: JsonValue): HygonChipChain {
  const sent = asJsonObject(value, 'hsk_cek', code);
  return {
    hsk: readHygonAuthority(optionalMember(sent, 'hsk'), 'hsk'),
    cek: readHygonKey(optionalMember(sent, 'cek'), 'cek'),
  };
}
