import { SealpodError } from '../errors.ts';
import {
  asJsonObject,
  asJsonText,
  decodeBase64,
  type JsonObject,
  type JsonValue,
  objectMember,
  optionalMember,
  parseJson,
} from '../json/index.ts';

/**
 * The JSON that travels inside `keyprovider.KeyProviderService/{WrapKey,UnWrapKey}` and through the standard input of
 * provider commands (ocicrypt, `utils/keyprovider` and `keywrap/keyprovider`).
 */

/** A request to wrap: private layer options, and the parameters the user gave each provider. */
export interface KeyWrapRequest {
  readonly parameters: Readonly<Record<string, readonly string[]>>;
  readonly privateOptions: Uint8Array;
}

/** A request to unwrap: the layer's annotation packet. */
export interface KeyUnwrapRequest {
  readonly parameters: Readonly<Record<string, readonly string[]>>;
  readonly annotation: Uint8Array;
}

const maxMessageSize = 1024 * 1024;

/** @throws SealpodError REQUEST_FORMAT, REQUEST_TOO_LARGE */
export function parseKeyWrapRequest(bytes: Uint8Array): KeyWrapRequest {
  const parameters = objectMember(parseMessage(bytes), 'keywrapparams');
  const privateOptions = optionalMember(parameters, 'optsdata');
  if (privateOptions === undefined || privateOptions === null) {
    throw new SealpodError('REQUEST_FORMAT', 'key wrap request has no optsdata');
  }
  return {
    parameters: parseProviderParameters(optionalMember(parameters, 'ec')),
    privateOptions: parseByteMember(privateOptions, 'optsdata'),
  };
}

/** @throws SealpodError REQUEST_FORMAT, REQUEST_TOO_LARGE */
export function parseKeyUnwrapRequest(bytes: Uint8Array): KeyUnwrapRequest {
  const parameters = objectMember(parseMessage(bytes), 'keyunwrapparams');
  const annotation = optionalMember(parameters, 'annotation');
  if (annotation === undefined || annotation === null) {
    throw new SealpodError('REQUEST_FORMAT', 'key unwrap request has no annotation');
  }
  return {
    parameters: parseProviderParameters(optionalMember(parameters, 'dc')),
    annotation: parseByteMember(annotation, 'annotation'),
  };
}

/** As skopeo sends it; every member is there, because the Rust parser requires them. */
export function encodeKeyWrapRequest(request: KeyWrapRequest): Buffer {
  return encode({
    op: 'keywrap',
    keywrapparams: {
      ec: { Parameters: encodeProviderParameters(request.parameters), DecryptConfig: { Parameters: {} } },
      optsdata: Buffer.from(request.privateOptions).toString('base64'),
    },
    keyunwrapparams: { dc: null, annotation: null },
  });
}

/** As skopeo sends it. */
export function encodeKeyUnwrapRequest(request: KeyUnwrapRequest): Buffer {
  return encode({
    op: 'keyunwrap',
    keywrapparams: { ec: null, optsdata: null },
    keyunwrapparams: {
      dc: { Parameters: encodeProviderParameters(request.parameters) },
      annotation: Buffer.from(request.annotation).toString('base64'),
    },
  });
}

/** Bytes as an array of numbers: Rust accepts nothing else, Go accepts that and base64. */
export function encodeKeyWrapResponse(annotation: Uint8Array): Buffer {
  return encode({ keywrapresults: { annotation: [...annotation] } });
}

/** Bytes as an array of numbers: Rust accepts nothing else, Go accepts that and base64. The result is secret. */
export function encodeKeyUnwrapResponse(privateOptions: Uint8Array): Buffer {
  return encode({ keyunwrapresults: { optsdata: [...privateOptions] } });
}

/** @throws SealpodError REQUEST_FORMAT, REQUEST_TOO_LARGE */
export function parseKeyWrapResponse(bytes: Uint8Array): Buffer {
  const results = objectMember(parseMessage(bytes), 'keywrapresults');
  return parseByteMember(optionalMember(results, 'annotation'), 'annotation');
}

/** @throws SealpodError REQUEST_FORMAT, REQUEST_TOO_LARGE */
export function parseKeyUnwrapResponse(bytes: Uint8Array): Buffer {
  const results = objectMember(parseMessage(bytes), 'keyunwrapresults');
  return parseByteMember(optionalMember(results, 'optsdata'), 'optsdata');
}

function parseMessage(bytes: Uint8Array): JsonObject {
  const what = 'key provider message';
  return asJsonObject(parseJson(bytes, { maxSize: maxMessageSize, maxDepth: 16, what }), what);
}

/** Bytes in JSON: an array of numbers (Rust) or standard base64 (Go). */
function parseByteMember(value: JsonValue | undefined, what: string): Buffer {
  if (!Array.isArray(value)) return decodeBase64(asJsonText(value, what), { what });
  const numbers: readonly JsonValue[] = value;
  return Buffer.from(
    numbers.map((item) => {
      if (typeof item === 'number' && Number.isInteger(item) && item >= 0 && item <= 255) return item;
      throw new SealpodError('REQUEST_FORMAT', `${what} must hold numbers from 0 to 255`);
    }),
  );
}

/** `{"Parameters":{"<provider>":["<base64>"]}}`; null, `{}` and `{"Parameters":null}` are all "none". */
function parseProviderParameters(value: JsonValue | undefined): Record<string, string[]> {
  if (value === undefined || value === null) return {};
  const parameters = optionalMember(asJsonObject(value, 'configuration'), 'Parameters');
  if (parameters === undefined || parameters === null) return {};
  return Object.fromEntries(
    Object.entries(asJsonObject(parameters, 'Parameters')).map(([provider, list]) => {
      if (!Array.isArray(list)) throw new SealpodError('REQUEST_FORMAT', 'provider parameters must be an array');
      const items: readonly JsonValue[] = list;
      return [provider, items.map((item) => decodeBase64(asJsonText(item, provider)).toString('utf8'))];
    }),
  );
}

function encodeProviderParameters(parameters: Readonly<Record<string, readonly string[]>>): Record<string, string[]> {
  return Object.fromEntries(
    Object.entries(parameters).map(([provider, list]) => [
      provider,
      list.map((item) => Buffer.from(item).toString('base64')),
    ]),
  );
}

function encode(message: object): Buffer {
  return Buffer.from(JSON.stringify(message));
}
