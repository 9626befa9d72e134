import { createPublicKey, type KeyObject } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { SealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  asJsonText,
  decodeHex,
  type JsonObject,
  type JsonValue,
  objectMember,
  optionalMember,
  parseJson,
  stringMember,
} from '@sealpod/protocol/json';

/** An enrolled platform attestation key (CPAK). */
export interface PlatformAnchor {
  readonly instanceId: Buffer;
  readonly implementationId: Buffer;
  readonly key: KeyObject;
}

/** A measured firmware component that a platform may have. What is undefined may be anything. */
export interface ComponentReference {
  readonly measurement: Buffer;
  readonly signer: Buffer;
  readonly type?: string;
  readonly version?: string;
}

/** A state that platforms of one implementation may be in. */
export interface PlatformReference {
  readonly implementationId: Buffer;
  readonly configuration: Buffer;
  readonly components: readonly ComponentReference[];
}

/** A realm that is known. */
export interface RealmReference {
  readonly initialMeasurement: Buffer;
  /** Undefined where any will do. */
  readonly extensibleMeasurements?: readonly Buffer[];
}

/** The contents of upstream's two stores. */
export interface CcaStores {
  readonly anchors: readonly PlatformAnchor[];
  readonly platforms: readonly PlatformReference[];
  readonly realms: readonly RealmReference[];
}

const code = 'USAGE';
const maxBytes = 16 * 1024 * 1024;

/**
 * Reads upstream's trust-anchor store: `[{"instance-id", "implementation-id", "pkey": JWK}]`, identifiers in hexadecimal
 * (rust-ccatoken, data-model.cddl).
 *
 * @throws SealpodError USAGE
 */
export function parseTrustAnchors(text: string): PlatformAnchor[] {
  const entries = parseStore(text, 'trust-anchor store');
  if (!Array.isArray(entries)) throw new SealpodError(code, 'the trust-anchor store is no array');
  const anchors = entries.map((value: JsonValue) => {
    const entry = asJsonObject(value, 'trust anchor', code);
    return {
      instanceId: hexMember(entry, 'instance-id'),
      implementationId: hexMember(entry, 'implementation-id'),
      key: readKey(objectMember(entry, 'pkey', code)),
    };
  });
  const ids = anchors.map(({ instanceId }) => instanceId.toString('hex'));
  const twice = ids.find((id, index) => ids.indexOf(id) !== index);
  if (twice !== undefined)
    throw new SealpodError(code, 'an instance has two keys in the trust-anchor store', { actual: twice });
  return anchors;
}

/**
 * Reads upstream's reference-value store: `{"platform": [{"implementation-id", "platform-configuration", "sw-components"}],
 * "realm": [{"initial-measurement", "extensible-measurements"?, …}]}`, bytes in hexadecimal.
 *
 * @throws SealpodError USAGE
 */
export function parseReferenceValues(text: string): Pick<CcaStores, 'platforms' | 'realms'> {
  const store = asJsonObject(parseStore(text, 'reference-value store'), 'reference-value store', code);
  return {
    platforms: objects(store, 'platform').map((platform) => ({
      implementationId: hexMember(platform, 'implementation-id'),
      configuration: hexMember(platform, 'platform-configuration'),
      components: objects(platform, 'sw-components').map(readComponent),
    })),
    realms: objects(store, 'realm').map((realm) => {
      const extensible = optionalMember(realm, 'extensible-measurements') ?? [];
      if (!Array.isArray(extensible)) throw new SealpodError(code, 'extensible-measurements is no array');
      const measurements = extensible.map((value: JsonValue) =>
        hex(asJsonText(value, 'extensible-measurements[]', code)),
      );
      return {
        initialMeasurement: hexMember(realm, 'initial-measurement'),
        ...(measurements.length === 0 ? {} : { extensibleMeasurements: measurements }),
      };
    }),
  };
}

/**
 * The stores in files, read again when one of them has changed, as upstream reads them each time.
 *
 * @returns a function that throws SealpodError EV_COLLATERAL_UNAVAILABLE where a file cannot be read or is malformed
 */
export function fileStores(trustAnchorFile: string, referenceValueFile: string): () => CcaStores {
  let known: { readonly version: string; readonly stores: CcaStores } | undefined;
  return () => {
    const version = [trustAnchorFile, referenceValueFile].map(versionOf).join(' ');
    if (known?.version !== version) {
      known = {
        version,
        stores: {
          anchors: parseFile(trustAnchorFile, parseTrustAnchors),
          ...parseFile(referenceValueFile, parseReferenceValues),
        },
      };
    }
    return known.stores;
  };
}

function unavailable(path: string, cause: unknown): SealpodError {
  return new SealpodError('EV_COLLATERAL_UNAVAILABLE', `the store ${path} cannot be used`, {
    actual: cause instanceof Error ? cause.message : String(cause),
    cause,
  });
}

function versionOf(path: string): string {
  try {
    const { mtimeMs, size, ino } = statSync(path);
    return `${mtimeMs}-${size}-${ino}`;
  } catch (cause) {
    throw unavailable(path, cause);
  }
}

function parseFile<Parsed>(path: string, parse: (text: string) => Parsed): Parsed {
  try {
    return parse(readFileSync(path, 'utf8'));
  } catch (cause) {
    throw unavailable(path, cause);
  }
}

function parseStore(text: string, what: string): JsonValue {
  return parseJson(text, { what, maxSize: maxBytes, code });
}

function objects(object: JsonObject, name: string): JsonObject[] {
  const value = optionalMember(object, name) ?? [];
  if (!Array.isArray(value)) throw new SealpodError(code, `${name} is no array`);
  return value.map((item: JsonValue) => asJsonObject(item, `${name}[]`, code));
}

function hex(text: string): Buffer {
  return decodeHex(text, { what: 'hexadecimal text', code });
}

function hexMember(object: JsonObject, name: string): Buffer {
  return decodeHex(stringMember(object, name, code), { what: name, code });
}

function readComponent(component: JsonObject): ComponentReference {
  // Upstream's tool writes members that it does not know as null.
  const text = (name: string): string | undefined =>
    (optionalMember(component, name) ?? null) === null ? undefined : stringMember(component, name, code);
  const [type, version] = [text('component-type'), text('version')];
  return {
    measurement: hexMember(component, 'measurement-value'),
    signer: hexMember(component, 'signer-id'),
    ...(type === undefined ? {} : { type }),
    ...(version === undefined ? {} : { version }),
  };
}

function readKey(jwk: JsonObject): KeyObject {
  const { d: privatePart } = jwk;
  if (privatePart !== undefined) throw new SealpodError(code, 'a key of the trust-anchor store is a private one');
  try {
    return createPublicKey({ key: jwk, format: 'jwk' });
  } catch (cause) {
    throw new SealpodError(code, 'a key of the trust-anchor store cannot be read', { cause });
  }
}
