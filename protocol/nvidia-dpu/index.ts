import { SealpodError } from '../errors.ts';
import {
  asJsonObject,
  decodeBase64,
  integerMember,
  type JsonValue,
  optionalMember,
  stringMember,
} from '../json/index.ts';

const code = 'EV_FORMAT';
const maxCertificateBytes = 8192;
const maxSignatureBytes = 256;

/** What a BlueField DPU sent. Nothing is verified. */
export interface DpuEvidence {
  /** E.g. `bluefield3`. */
  readonly architecture: string;
  /** Certificate of the key that signs, DER. */
  readonly aliasCertificate: Buffer;
  /** Certificate of the device, DER. */
  readonly deviceIdCertificate: Buffer;
  /** ECDSA P-384 over the report data: DER, or R and S one after the other. */
  readonly reportDataSignature: Buffer;
}

/**
 * Reads the evidence of TEE `nvidia-dpu` (trustee: nvidia_dpu): `{"version", "devices": [{"architecture", "alias_cert",
 * "device_id_cert", "report_data_signature"}]}`, base64, with exactly one device.
 *
 * @throws SealpodError EV_FORMAT naming the member, REQUEST_TOO_LARGE
 */
export function parseDpuEvidence(evidence: JsonValue): DpuEvidence {
  const root = asJsonObject(evidence, 'nvidia-dpu evidence', code);
  const version = integerMember(root, 'version', code);
  const devices = optionalMember(root, 'devices');
  if (version !== 1)
    throw new SealpodError(code, 'unknown version of nvidia-dpu evidence', { expected: '1', actual: `${version}` });
  if (!Array.isArray(devices) || devices.length !== 1)
    throw new SealpodError(code, 'devices must be an array with one device');
  const device = asJsonObject(devices[0] as JsonValue, 'devices[]', code);
  const bytes = (name: string, maxBytes: number): Buffer =>
    decodeBase64(stringMember(device, name, code), { what: name, maxBytes, code });
  return {
    architecture: stringMember(device, 'architecture', code).slice(0, 64),
    aliasCertificate: bytes('alias_cert', maxCertificateBytes),
    deviceIdCertificate: bytes('device_id_cert', maxCertificateBytes),
    reportDataSignature: bytes('report_data_signature', maxSignatureBytes),
  };
}
