import {
  asCborArray,
  asCborBytes,
  asCborInteger,
  asCborMap,
  asCborText,
  type CborMap,
  CborTag,
  type CborValue,
  describeCbor,
} from '@sealpod/protocol/cose';
import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import { decodeInner, tags } from './tags.ts';

const maxValues = 10_000;

/**
 * The reference triples of a manifest's CoMID tags as reference values. Ids are upstream's: vendor, model, key of the
 * measurement (text, `claim<number>`, UUID), name and serial number, as far as they are there, joined by `/`, and then
 * `digests` (a list of hex digests) or `raw_bytes` (hex). Beyond upstream `svn` (a list of numbers) and, for integrity
 * registers, `<register>/digests`. What an id may not hold becomes `_`.
 *
 * Other triples endorse or bind keys; they are no reference values and are left alone. Tags of another kind are refused:
 * who signed them meant something by them.
 *
 * @throws SealpodError EV_FORMAT, UNSUPPORTED
 */
export function referenceValuesOf(manifestTags: CborValue): JsonObject {
  const values = new Map<string, JsonValue>();
  for (const item of asCborArray(manifestTags, 'tags of the CoRIM')) {
    const tag = item instanceof Uint8Array ? tagInside(item) : item;
    if (!(tag instanceof CborTag) || tag.tag !== tags.comid)
      throw unsupported('tag', 'CoMID (506)', tag instanceof CborTag ? `${tag.tag}` : describeCbor(tag));
    const comid = asCborMap(decodeInner(tag.value, 'CoMID'), 'CoMID');
    const triples = asCborMap(comid.get(4), 'triples of the CoMID');
    if (!triples.has(0)) continue;
    for (const triple of asCborArray(triples.get(0), 'reference triples')) readTriple(triple, values);
    if (values.size > maxValues) throw new SealpodError('REQUEST_TOO_LARGE', 'the CoRIM holds too many values');
  }
  if (values.size === 0) throw new SealpodError('EV_FORMAT', 'the CoRIM holds no reference value');
  return Object.fromEntries(values);
}

/** Earlier drafts, and Veraison's tools, wrap a tag with what it holds into a byte string. */
function tagInside(bytes: Uint8Array): CborValue {
  const [first, high = 0, low = 0] = bytes;
  return first === 0xd9 ? new CborTag((high << 8) | low, bytes.subarray(3)) : bytes;
}

function readTriple(triple: CborValue, values: Map<string, JsonValue>): void {
  const [environment, measurements] = asCborArray(triple, 'reference triple');
  const names = environmentNames(asCborMap(environment, 'environment'));
  for (const measurement of asCborArray(measurements, 'measurements')) {
    const map = asCborMap(measurement, 'measurement');
    const content = asCborMap(map.get(1), 'measurement values');
    const serial = content.get(8);
    const name = content.get(11);
    const parts = [
      ...names,
      ...(map.has(0) ? [measurementKey(map.get(0))] : []),
      ...(name === undefined ? [] : [asCborText(name, 'name of a measurement')]),
      ...(serial === undefined ? [] : [asCborText(serial, 'serial number of a measurement')]),
    ];
    readValues(parts, content, values);
  }
}

function environmentNames(environment: CborMap): string[] {
  const environmentClass = environment.get(0);
  if (environment.has(1) || environment.has(2))
    throw unsupported('environment', 'a class', 'an instance or a group, which would hold for some machines only');
  if (environmentClass === undefined) return [];
  const map = asCborMap(environmentClass, 'class of an environment');
  return [map.get(1), map.get(2)].flatMap((name) =>
    name === undefined ? [] : [asCborText(name, 'name in the class of an environment')],
  );
}

function measurementKey(key: CborValue): string {
  if (typeof key === 'string') return key;
  if (typeof key === 'number') return `claim${asCborInteger(key, 'key of a measurement')}`;
  if (key instanceof CborTag && key.tag === tags.uuid) {
    const hex = asCborBytes(key.value, 'UUID of a measurement', 16).toString('hex');
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
  }
  throw unsupported('key of a measurement', 'text, a number or a UUID', describeCbor(key));
}

/** Members of measurement-values-map that are no value: name, serial number, cryptographic keys of an endorser. */
const notValues: readonly CborValue[] = [8, 11];

function readValues(parts: readonly string[], content: CborMap, values: Map<string, JsonValue>): void {
  for (const [label, value] of content) {
    if (notValues.includes(label)) continue;
    if (label === 1) append(values, [...parts, 'svn'], [exactSvn(value)]);
    else if (label === 2) append(values, [...parts, 'digests'], digestsOf(value));
    else if (label === 4) setOnce(values, [...parts, 'raw_bytes'], rawBytes(value));
    else if (label === 14) {
      for (const [register, digests] of asCborMap(value, 'integrity registers'))
        append(values, [...parts, String(register), 'digests'], digestsOf(digests));
    } else {
      throw unsupported(
        'measurement value',
        'svn, digests, raw value or integrity registers',
        `member ${String(label)}`,
      );
    }
  }
}

function exactSvn(value: CborValue): number {
  if (value instanceof CborTag && value.tag !== tags.svn)
    throw unsupported('security version', 'an exact one', `tag ${value.tag}`);
  return asCborInteger(value instanceof CborTag ? value.value : value, 'security version');
}

function rawBytes(value: CborValue): string {
  if (value instanceof CborTag && value.tag !== tags.bytes)
    throw unsupported('raw value', 'plain bytes (560)', `tag ${value.tag}`);
  return asCborBytes(value instanceof CborTag ? value.value : value, 'raw value').toString('hex');
}

function digestsOf(value: CborValue): string[] {
  return asCborArray(value, 'digests').map((digest) => {
    const [, bytes] = asCborArray(digest, 'digest');
    return asCborBytes(bytes, 'digest', 28, 32, 48, 64).toString('hex');
  });
}

function idOf(parts: readonly string[]): string {
  return parts
    .map((part) => part.replaceAll(/[^A-Za-z0-9_.-]/g, '_').replace(/^\./, '_'))
    .filter((part) => part !== '')
    .join('/');
}

function append(values: Map<string, JsonValue>, parts: readonly string[], added: readonly JsonValue[]): void {
  const id = idOf(parts);
  const present = values.get(id);
  const list = Array.isArray(present) ? (present as readonly JsonValue[]) : [];
  values.set(id, [...list, ...added.filter((one) => !list.includes(one))]);
}

function setOnce(values: Map<string, JsonValue>, parts: readonly string[], value: string): void {
  const id = idOf(parts);
  const present = values.get(id);
  if (present !== undefined && present !== value)
    throw new SealpodError('EV_FORMAT', `the CoRIM gives two raw values for ${id}`, { expected: 'one' });
  values.set(id, value);
}

function unsupported(what: string, expected: string, actual: string): SealpodError {
  return new SealpodError('UNSUPPORTED', `a ${what} of the CoRIM is not supported`, { expected, actual });
}
