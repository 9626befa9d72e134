import { SealpodError } from '../errors.ts';
import {
  asJsonObject,
  asJsonText,
  decodeBase64,
  decodeHex,
  type JsonObject,
  type JsonValue,
  optionalMember,
  stringMember,
} from '../json/index.ts';

const code = 'EV_FORMAT';

/** Devices of one evidence, at most: each costs a verification, and the guest chooses how many it sends. */
export const maxNvidiaDevices = 16;
const maxReportBytes = 64 * 1024;
const maxChainBytes = 64 * 1024;

/** Architectures, as evidence and NVIDIA's services name them: two of GPUs, and the NVSwitch. */
export type NvidiaArchitecture = 'HOPPER' | 'BLACKWELL' | 'LS10';

/** Spellings that upstream accepts. */
const architectures: Readonly<Record<string, NvidiaArchitecture>> = {
  HOPPER: 'HOPPER',
  Hopper: 'HOPPER',
  BLACKWELL: 'BLACKWELL',
  Blackwell: 'BLACKWELL',
  LS10: 'LS10',
};

/** What one device sent. Nothing is verified; the report is not parsed. */
export interface NvidiaDevice {
  readonly architecture: NvidiaArchitecture;
  readonly uuid: string;
  readonly report: Buffer;
  /** The certificate chain as PEM text, leaf first. */
  readonly certificates: string;
}

/**
 * Reads `{"device_evidence_list": [{"arch", "uuid"?, "evidence", "certificate"}]}` (trustee: nvidia). The report is
 * hexadecimal or base64, the certificates base64 of PEM text.
 *
 * @throws SealpodError EV_FORMAT naming the member, REQUEST_TOO_LARGE for too many devices or bytes
 */
export function parseNvidiaEvidence(evidence: JsonValue): NvidiaDevice[] {
  const list = optionalMember(asJsonObject(evidence, 'nvidia evidence', code), 'device_evidence_list');
  if (!Array.isArray(list) || list.length === 0)
    throw new SealpodError(code, 'device_evidence_list must be an array with a device');
  if (list.length > maxNvidiaDevices)
    throw new SealpodError('REQUEST_TOO_LARGE', 'too many NVIDIA devices', {
      expected: `at most ${maxNvidiaDevices}`,
      actual: `${list.length}`,
    });
  return list.map((device: JsonValue) => readDevice(asJsonObject(device, 'device_evidence_list[]', code)));
}

function readDevice(device: JsonObject): NvidiaDevice {
  const arch = stringMember(device, 'arch', code);
  const architecture = Object.hasOwn(architectures, arch) ? architectures[arch] : undefined;
  if (architecture === undefined)
    throw new SealpodError('EV_TEE_UNSUPPORTED', 'unknown NVIDIA architecture', {
      expected: Object.values(architectures).join(', '),
      actual: arch.slice(0, 32),
    });
  const uuid = optionalMember(device, 'uuid');
  return {
    architecture,
    uuid: uuid === undefined ? 'unknown' : asJsonText(uuid, 'uuid', code).slice(0, 128),
    report: reportBytes(stringMember(device, 'evidence', code)),
    certificates: decodeBase64(stringMember(device, 'certificate', code), {
      what: 'certificate',
      maxBytes: maxChainBytes,
      code,
    }).toString('latin1'),
  };
}

/** Hexadecimal is tried first, for base64 text of digits and letters a to f alone is no report. */
function reportBytes(text: string): Buffer {
  const options = { what: 'evidence', maxBytes: maxReportBytes, code } as const;
  return /^[0-9a-fA-F]*$/.test(text) && text.length % 2 === 0 ? decodeHex(text, options) : decodeBase64(text, options);
}
