import { SealpodError } from '../errors.ts';
import {
  asJsonObject,
  decodeBase64,
  integerMember,
  type JsonObject,
  type JsonValue,
  parseJson,
  stringMember,
} from '../json/index.ts';
import { seHeaderTagsBytes } from './header.ts';

const code = 'EV_FORMAT';
const maxText = 256 * 1024;

/** What a guest is asked: upstream's challenge for TEE `se`, which is the nonce of the session. */
export interface SeAttestationRequest {
  /** The attestation request control block, for the Ultravisor. */
  readonly requestBlob: Buffer;
  readonly measurementSize: number;
  readonly additionalSize: number;
  /** Two values that the guest sends back and cannot read. */
  readonly sealedMeasurementKey: Buffer;
  readonly sealedRequestNonce: Buffer;
  readonly imageHeaderTags: Buffer;
}

/** Evidence of TEE `se`. Nothing in it is verified. */
export interface SeAttestationResponse {
  /** 64 bytes. */
  readonly measurement: Buffer;
  readonly additionalData: Buffer;
  /** At most 256 bytes. */
  readonly userData: Buffer;
  /** 16 bytes: this guest, as long as it runs. */
  readonly configurationId: Buffer;
  readonly sealedMeasurementKey: Buffer;
  readonly sealedRequestNonce: Buffer;
  readonly imageHeaderTags: Buffer;
}

/** The text of a challenge (trustee: se). */
export function serializeSeRequest(request: SeAttestationRequest): string {
  return JSON.stringify({
    request_blob: request.requestBlob.toString('base64'),
    measurement_size: request.measurementSize,
    additional_size: request.additionalSize,
    encr_measurement_key: request.sealedMeasurementKey.toString('base64'),
    encr_request_nonce: request.sealedRequestNonce.toString('base64'),
    image_hdr_tags: request.imageHeaderTags.toString('base64'),
  });
}

/** @throws SealpodError EV_FORMAT, REQUEST_TOO_LARGE */
export function parseSeRequest(text: string): SeAttestationRequest {
  const root = asJsonObject(parseJson(text, { what: 'se request', maxSize: maxText, code }), 'se request', code);
  return {
    requestBlob: bytesMember(root, 'request_blob', 64 * 1024),
    measurementSize: integerMember(root, 'measurement_size', code),
    additionalSize: integerMember(root, 'additional_size', code),
    ...sealedMembers(root),
  };
}

/** @throws SealpodError EV_FORMAT naming the member, REQUEST_TOO_LARGE */
export function parseSeEvidence(evidence: JsonValue): SeAttestationResponse {
  // Upstream's guest sends the text of a document, which some key brokers pass on as text.
  const value =
    typeof evidence === 'string' ? parseJson(evidence, { what: 'se evidence', maxSize: maxText, code }) : evidence;
  const root = asJsonObject(value, 'se evidence', code);
  return {
    measurement: bytesMember(root, 'measurement', 64, 64),
    additionalData: bytesMember(root, 'additional_data', 32 * 1024),
    userData: bytesMember(root, 'user_data', 256),
    configurationId: bytesMember(root, 'cuid', 16, 16),
    ...sealedMembers(root),
  };
}

function sealedMembers(
  root: JsonObject,
): Pick<SeAttestationRequest, 'sealedMeasurementKey' | 'sealedRequestNonce' | 'imageHeaderTags'> {
  return {
    sealedMeasurementKey: bytesMember(root, 'encr_measurement_key', 1024),
    sealedRequestNonce: bytesMember(root, 'encr_request_nonce', 1024),
    imageHeaderTags: bytesMember(root, 'image_hdr_tags', seHeaderTagsBytes, seHeaderTagsBytes),
  };
}

function bytesMember(object: JsonObject, name: string, most: number, least = 0): Buffer {
  const bytes = decodeBase64(stringMember(object, name, code), { what: name, maxBytes: most, code });
  if (bytes.length < least) {
    throw new SealpodError(code, `${name} is too short`, { expected: `${least} bytes`, actual: `${bytes.length}` });
  }
  return bytes;
}
