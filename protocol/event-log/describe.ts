import { createHash } from 'node:crypto';
import { type JsonObject, type JsonValue, parseJson } from '../json/index.ts';
import { aaelTag, parseAael } from './aael.ts';
import { bankOf } from './bank.ts';
import { devicePathTexts } from './device-path.ts';
import { parseUefiVariable } from './event-data.ts';
import { EventType, eventTypeName } from './event-types.ts';
import type { EventDigest, LogEvent } from './parse.ts';

/**
 * An event as upstream tells it in the claim `uefi_event_logs`: names, members and quirks included, because policies look
 * into them. `digest_matches_event` says whether the digest is that of the event's own data; where it is false, the data
 * only describe what was measured. An event whose data are not what its type says has empty details.
 */
export function describeEvent({ register, type, digests, data }: LogEvent): JsonObject {
  return {
    details: details(type, data),
    digest_matches_event: digests.length > 0 && digests.every((digest) => matches(digest, data)),
    digests: digests.map(({ algorithm, digest }) => ({
      alg: algorithmName(algorithm),
      digest: digest.toString('hex'),
    })),
    event: data.toString('base64'),
    index: register,
    type_name: eventTypeName(type),
  };
}

function algorithmName(algorithm: number): string {
  return bankOf(algorithm)?.hash.toUpperCase().replace('SHA', 'SHA-') ?? `0x${algorithm.toString(16).padStart(4, '0')}`;
}

function matches({ algorithm, digest }: EventDigest, data: Buffer): boolean {
  const bank = bankOf(algorithm);
  return bank?.bytes === digest.length && createHash(bank.hash).update(data).digest().equals(digest);
}

const plainText = new Set<number>([
  EventType.EV_POST_CODE,
  EventType.EV_ACTION,
  EventType.EV_COMPACT_HASH,
  EventType.EV_OMIT_BOOT_DEVICE_EVENTS,
  EventType.EV_EFI_ACTION,
]);
const variables = new Set<number>([
  EventType.EV_EFI_VARIABLE_DRIVER_CONFIG,
  EventType.EV_EFI_VARIABLE_BOOT,
  EventType.EV_EFI_VARIABLE_BOOT2,
  EventType.EV_EFI_VARIABLE_AUTHORITY,
]);

function details(type: number, data: Buffer): JsonObject {
  try {
    if (plainText.has(type)) return { string: utf8(data) };
    if (variables.has(type)) return variable(data);
    switch (type) {
      case EventType.EV_EVENT_TAG:
        return taggedEvent(data);
      case EventType.EV_PLATFORM_CONFIG_FLAGS:
        return { string: configurationText(data) };
      case EventType.EV_IPL:
        return { string: bootLoaderText(data) };
      case EventType.EV_EFI_BOOT_SERVICES_APPLICATION:
        return application(data);
      case EventType.EV_EFI_PLATFORM_FIRMWARE_BLOB2:
      case EventType.EV_EFI_HANDOFF_TABLES2:
        return sizedText(data);
      default:
        return {};
    }
  } catch {
    // The bytes are in the claim all the same, and what they are worth their digest says.
    return {};
  }
}

function utf8(data: Buffer): string {
  return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(data);
}

function variable(data: Buffer): JsonObject {
  const { guid, name, data: value } = parseUefiVariable(data);
  const part = (from: number, to: number): string => guid.toString('hex', from, to);
  return {
    unicode_name: name,
    unicode_name_length: name.length,
    variable_data: value.toString('base64'),
    variable_data_length: value.length,
    variable_name: [part(0, 4), part(4, 6), part(6, 8), part(8, 10), part(10, 16)].join('-'),
  };
}

function taggedEvent(data: Buffer): JsonObject {
  const text = utf8(data.subarray(8, 8 + data.readUInt32LE(4))).replaceAll('\0', '');
  const agent = data.readUInt32LE(0) === aaelTag ? parseAael(data) : undefined;
  if (agent === undefined) return { string: text };
  const { domain, operation } = agent;
  return { data: { content: structured(agent.content), domain, operation }, string: text, unicode_name: 'AAEL' };
}

/** JSON where it is JSON, text otherwise. */
function structured(content: string): JsonValue {
  try {
    return parseJson(content, { maxSize: 64 * 1024 });
  } catch {
    return content;
  }
}

/** Control characters are left out, U+0010 becomes a space; what is not UTF-8 is no text at all. */
function configurationText(data: Buffer): string {
  try {
    return utf8(data)
      .replaceAll('\u0010', ' ')
      .replace(/\p{Cc}/gu, '');
  } catch {
    return '';
  }
}

/** Of Google's machines `.` and NUL, then UTF-16; else text up to the first NUL, or hexadecimal where it is none. */
function bootLoaderText(data: Buffer): string {
  if (data.length < 2) throw new RangeError('too short');
  if (data[0] === 0x2e && data[1] === 0) {
    if (data.length === 2 || data.length % 2 !== 0) throw new RangeError('no UTF-16');
    return data.subarray(2, data.length - 2).toString('utf16le');
  }
  const end = data.indexOf(0);
  try {
    return utf8(end < 0 ? data : data.subarray(0, end));
  } catch {
    return data.toString('hex');
  }
}

/** UEFI_IMAGE_LOAD_EVENT; the last four bytes of its path are the node that ends it. */
function application(data: Buffer): JsonObject {
  const length = data.readBigUInt64LE(24);
  if (length === 0n) return {};
  if (length < 8n || length > BigInt(data.length - 32)) return {};
  const texts = devicePathTexts(data.subarray(32, 32 + Number(length) - 4));
  return texts === undefined ? {} : { device_paths: texts };
}

/** A length, and so many bytes of which the last is a NUL. */
function sizedText(data: Buffer): JsonObject {
  const length = data.readUInt8(0);
  if (data.length < length || length === 0) return {};
  return { string: utf8(data.subarray(1, length)) };
}
