import { createPublicKey, type KeyObject } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  asJsonText,
  integerMember,
  type JsonObject,
  type JsonValue,
  optionalMember,
  stringArrayMember,
  stringMember,
} from '@sealpod/protocol/json';
import { optionalFlag, refuseUnknownMembers } from '../endorsements/config-members.ts';

/** A key that may sign reference values. */
export interface SignerConfig {
  /** Shown as the provenance of what it signs. */
  readonly name: string;
  /** PEM (SPKI): Ed25519, EC P-256 or P-384. */
  readonly publicKey: string;
  /** The reference value ids it may speak for: each an id, or a beginning of ids that ends with `*`. Default: all. */
  readonly ids?: readonly string[];
}

/** How reference values get in. */
export interface ReferenceValuesConfig {
  /** Keys that may sign reference values. None by default. */
  readonly signers?: readonly SignerConfig[];
  /** How many different signers a statement needs. Default 1. */
  readonly requiredSignatures?: number;
  /**
   * How many different administrators must approve learned values before they are promoted. Default 1. With more than
   * one, an administrator alone can register no value any more, only delete.
   */
  readonly approvals?: number;
  /** Accepts and uses values that nobody stands for, as upstream does. Default false. */
  readonly acceptUnsigned?: boolean;
}

/** An enrolled signer. */
export interface Signer {
  readonly name: string;
  readonly key: KeyObject;
  readonly ids: readonly string[];
}

const code = 'USAGE';

/**
 * Reads `{"signers"?: [{"name", "publicKeyFile", "ids"?}], "requiredSignatures"?, "approvals"?, "acceptUnsigned"?}`.
 *
 * @param at makes a path of the configuration absolute
 * @param readText reads a file of the configuration
 * @throws SealpodError USAGE naming the member
 */
export function readReferenceValuesConfig(
  value: JsonValue,
  at: (path: string) => string,
  readText: (path: string) => string,
): ReferenceValuesConfig {
  const root = asJsonObject(value, 'referenceValues', code);
  refuseUnknownMembers(root, ['signers', 'requiredSignatures', 'approvals', 'acceptUnsigned'], 'referenceValues');
  const signers = optionalMember(root, 'signers');
  if (signers !== undefined && !Array.isArray(signers))
    throw new SealpodError(code, 'referenceValues.signers must be an array');
  const config: ReferenceValuesConfig = {
    ...(signers === undefined
      ? {}
      : {
          signers: signers.map((signer: JsonValue) =>
            readSigner(asJsonObject(signer, 'referenceValues.signers[]', code), at, readText),
          ),
        }),
    ...positive(root, 'requiredSignatures'),
    ...positive(root, 'approvals'),
    ...optionalFlag(root, 'acceptUnsigned'),
  };
  openSigners(config);
  return config;
}

function positive(root: JsonObject, name: 'requiredSignatures' | 'approvals'): object {
  if (optionalMember(root, name) === undefined) return {};
  const number = integerMember(root, name, code);
  if (number < 1 || number > 16) {
    throw new SealpodError(code, `referenceValues.${name} is out of range`, {
      expected: '1 to 16',
      actual: `${number}`,
    });
  }
  return { [name]: number };
}

function readSigner(
  signer: JsonObject,
  at: (path: string) => string,
  readText: (path: string) => string,
): SignerConfig {
  refuseUnknownMembers(signer, ['name', 'publicKeyFile', 'ids'], 'referenceValues.signers[]');
  return {
    name: stringMember(signer, 'name', code),
    publicKey: readText(at(asJsonText(optionalMember(signer, 'publicKeyFile'), 'publicKeyFile', code))),
    ...(optionalMember(signer, 'ids') === undefined ? {} : { ids: stringArrayMember(signer, 'ids', code) }),
  };
}

/**
 * The signers of a configuration.
 *
 * @throws SealpodError USAGE for a key of another kind, a private key, two signers of one name or key, and more required
 * signatures than there are signers
 */
export function openSigners({ signers = [], requiredSignatures = 1 }: ReferenceValuesConfig): Signer[] {
  const opened = signers.map(({ name, publicKey, ids = ['*'] }) => ({ name, ids, key: openKey(name, publicKey) }));
  for (const what of [opened.map(({ name }) => name), opened.map(({ key }) => keyText(key))]) {
    if (new Set(what).size !== what.length)
      throw new SealpodError(code, 'two signers of reference values have one name or one key');
  }
  if (signers.length > 0 && requiredSignatures > signers.length) {
    throw new SealpodError(code, 'more signatures of reference values are required than there are signers', {
      expected: `at most ${signers.length}`,
      actual: `${requiredSignatures}`,
    });
  }
  return opened;
}

function keyText(key: KeyObject): string {
  return key.export({ format: 'der', type: 'spki' }).toString('base64');
}

function openKey(name: string, pem: string): KeyObject {
  let key: KeyObject;
  try {
    if (pem.includes('PRIVATE KEY')) throw new Error('the file holds a private key');
    key = createPublicKey(pem);
  } catch (cause) {
    throw new SealpodError(code, `the public key of signer ${name} cannot be read`, { expected: 'PEM (SPKI)', cause });
  }
  const { namedCurve = '' } = key.asymmetricKeyDetails ?? {};
  const usable =
    key.asymmetricKeyType === 'ed25519' ||
    (key.asymmetricKeyType === 'ec' && ['prime256v1', 'secp384r1'].includes(namedCurve));
  if (!usable) {
    throw new SealpodError(code, `signer ${name} has a key of another kind`, {
      expected: 'Ed25519, EC P-256 or EC P-384',
      actual: `${key.asymmetricKeyType ?? 'secret'} ${namedCurve}`.trim(),
    });
  }
  return key;
}

/** Whether a signer may speak for a reference value. */
export function maySign({ ids }: Signer, id: string): boolean {
  return ids.some((pattern) => (pattern.endsWith('*') ? id.startsWith(pattern.slice(0, -1)) : id === pattern));
}
