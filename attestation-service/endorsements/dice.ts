import { SealpodError } from '@sealpod/protocol/errors';
import { type BaseBlock, Constructed, Integer, ObjectIdentifier, OctetString, Sequence } from 'asn1js';
import type { Certificate } from './certificate.ts';
import { derValue } from './der.ts';

/** A firmware identity: the digest of what a layer booted. */
export interface FirmwareId {
  /** Object identifier of the hash. */
  readonly hashAlgorithm: string;
  readonly digest: Buffer;
}

/**
 * Extensions that carry firmware identities: TcbInfo (TCG DICE Attestation Architecture, section 6.1.1), under its own
 * identifier, and under the one below it that NVIDIA uses since Blackwell. Hopper has the older CompositeDeviceID under the first.
 */
const extensions = ['2.23.133.5.4.1', '2.23.133.5.4.1.1'];
const maxFirmwareIds = 32;
/** TcbInfo's member `fwids`. */
const firmwareIdsTag = 6;
const contextClass = 3;

/**
 * The firmware identities that a DICE certificate attests, in their order; undefined where it has no such extension.
 *
 * - `TcbInfo ::= SEQUENCE { …, fwids [6] IMPLICIT SEQUENCE OF FWID, … }`; a further SEQUENCE inside of [6] is read too
 * - `CompositeDeviceID ::= SEQUENCE { version INTEGER, deviceID SubjectPublicKeyInfo, fwid FWID }`
 * - `FWID ::= SEQUENCE { hashAlg OBJECT IDENTIFIER, digest OCTET STRING }`
 *
 * @throws SealpodError EV_FORMAT where there is one that is neither
 */
export function firmwareIds(certificate: Certificate): readonly FirmwareId[] | undefined {
  const value = extensions.map((oid) => certificate.extensions.get(oid)).find((found) => found !== undefined);
  if (value === undefined) return undefined;
  const members = membersOf(parse(value));
  const found = members[0] instanceof Integer ? members.slice(-1) : taggedIds(members);
  if (found.length > maxFirmwareIds) throw malformed(`${found.length} firmware identities`);
  return found.map(firmwareId);
}

function parse(der: Buffer): BaseBlock {
  const value = derValue(der);
  if (value === undefined) throw malformed('no DER value');
  return value;
}

function membersOf(block: BaseBlock | undefined): BaseBlock[] {
  if (block instanceof Sequence || block instanceof Constructed) return block.valueBlock.value;
  throw malformed('no SEQUENCE');
}

function taggedIds(members: readonly BaseBlock[]): BaseBlock[] {
  const tagged = members.find(
    ({ idBlock }) => idBlock.tagClass === contextClass && idBlock.tagNumber === firmwareIdsTag,
  );
  if (tagged === undefined) return [];
  const inner = membersOf(tagged);
  const [first] = inner;
  const nested = inner.length === 1 && first instanceof Sequence && first.valueBlock.value[0] instanceof Sequence;
  return nested ? membersOf(first) : inner;
}

function firmwareId(block: BaseBlock): FirmwareId {
  const [algorithm, digest] = membersOf(block);
  if (!(algorithm instanceof ObjectIdentifier && digest instanceof OctetString)) throw malformed('no FWID');
  return { hashAlgorithm: algorithm.valueBlock.toString(), digest: Buffer.from(digest.valueBlock.valueHexView) };
}

function malformed(actual: string): SealpodError {
  return new SealpodError('EV_FORMAT', 'malformed DICE extension in a certificate', {
    expected: 'TcbInfo or CompositeDeviceID',
    actual,
  });
}
