import { SealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  decodeBase64,
  type JsonObject,
  optionalMember,
  parseJson,
  stringMember,
} from '@sealpod/protocol/json';

/** Version of upstream's messages. */
const messageVersion = '0.1.0';

/**
 * Reads a message of upstream's Reference Value Provider Service: JSON text `{"version"?, "type", "payload"}`. Type
 * `sample` is supported: its payload is base64 of a JSON object, each member a reference value. Nothing in a message is
 * signed, so who may send one is for the caller to decide.
 *
 * @returns reference value id → value
 * @throws SealpodError REQUEST_FORMAT, REQUEST_TOO_LARGE, UNSUPPORTED for another type
 */
export function parseReferenceValueMessage(text: string): JsonObject {
  const message = asJsonObject(parseJson(text, { what: 'reference value message' }), 'reference value message');
  const version = optionalMember(message, 'version') ?? messageVersion;
  if (version !== messageVersion) {
    throw new SealpodError('REQUEST_FORMAT', 'unknown version of a reference value message', {
      expected: messageVersion,
      actual: String(version),
    });
  }
  const type = stringMember(message, 'type');
  if (type !== 'sample')
    throw new SealpodError('UNSUPPORTED', 'unknown type of reference value message', {
      expected: 'sample',
      actual: type,
    });
  const payload = decodeBase64(stringMember(message, 'payload'), { what: 'payload', maxBytes: 1024 * 1024 });
  return asJsonObject(parseJson(payload, { what: 'reference value payload' }), 'reference value payload');
}
