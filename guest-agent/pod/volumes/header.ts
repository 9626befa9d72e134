import { SealpodError } from '@sealpod/protocol/errors';

/** Cipher of volumes and of the slots that hold their key: no other is opened. */
export const volumeCipher = 'aes-xts-plain64';
/** Bytes of its key: two of AES-256. */
export const volumeKeyBytes = 64;

const magic = Buffer.from('LUKS\xba\xbe', 'latin1');
const keyDerivations = new Set(['pbkdf2', 'argon2i', 'argon2id']);

/** Whether a disk begins as a LUKS2 volume does (LUKS2 on-disk format specification, 2.1). */
export function isEncryptedVolume(start: Uint8Array): boolean {
  const bytes = Buffer.from(start);
  return bytes.length >= 8 && bytes.subarray(0, magic.length).equals(magic) && bytes.readUInt16BE(magic.length) === 2;
}

/** Whether nothing was ever written to the start of a disk. */
export function isEmpty(start: Uint8Array): boolean {
  return start.every((byte) => byte === 0);
}

type Json = Readonly<Record<string, unknown>>;

/**
 * Checks the metadata of a LUKS2 header that the host wrote, and could have written differently: nothing in it is
 * authentic before the key fits, and a header may ask for no encryption at all. Only what sealpod or `cryptsetup luksFormat`
 * makes of one plain volume is let through: AES-XTS for the data and for the slots of its key, no second segment, no token,
 * no requirement.
 *
 * @param text what `cryptsetup luksDump --dump-json-metadata` prints
 * @throws SealpodError VOLUME_FORMAT naming the member
 */
export function checkVolumeHeader(text: string): void {
  const root = object(parse(text), 'header');
  expect('tokens', Object.keys(object(root['tokens'], 'tokens')).length, 0);
  expect('config.requirements', object(root['config'], 'config')['requirements'], undefined);
  const segments = object(root['segments'], 'segments');
  expect('segments', Object.keys(segments).join(), '0');
  const segment = object(segments['0'], 'segments.0');
  expect('segments.0.type', segment['type'], 'crypt');
  expect('segments.0.encryption', segment['encryption'], volumeCipher);
  expect('segments.0.integrity', segment['integrity'], undefined);
  expect('segments.0.flags', segment['flags'], undefined);
  expect('segments.0.size', segment['size'], 'dynamic');
  expect('segments.0.iv_tweak', segment['iv_tweak'], '0');
  const slots = Object.entries(object(root['keyslots'], 'keyslots'));
  if (slots.length === 0) throw refused('keyslots', 'at least one', 'none');
  for (const [name, value] of slots) checkSlot(`keyslots.${name}`, object(value, `keyslots.${name}`));
  const digests = object(root['digests'], 'digests');
  expect('digests', Object.keys(digests).join(), '0');
  const digest = object(digests['0'], 'digests.0');
  expect('digests.0.type', digest['type'], 'pbkdf2');
  expect('digests.0.segments', JSON.stringify(digest['segments']), '["0"]');
}

function checkSlot(name: string, slot: Json): void {
  expect(`${name}.type`, slot['type'], 'luks2');
  expect(`${name}.key_size`, slot['key_size'], volumeKeyBytes);
  const area = object(slot['area'], `${name}.area`);
  expect(`${name}.area.type`, area['type'], 'raw');
  expect(`${name}.area.encryption`, area['encryption'], volumeCipher);
  expect(`${name}.area.key_size`, area['key_size'], volumeKeyBytes);
  expect(`${name}.af.type`, object(slot['af'], `${name}.af`)['type'], 'luks1');
  const kdf = String(object(slot['kdf'], `${name}.kdf`)['type']);
  if (!keyDerivations.has(kdf)) throw refused(`${name}.kdf.type`, [...keyDerivations].join(' or '), kdf);
}

function expect(member: string, actual: unknown, expected: string | number | undefined): void {
  if (actual !== expected) throw refused(member, String(expected ?? 'absent'), JSON.stringify(actual) ?? 'absent');
}

function object(value: unknown, member: string): Json {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Json;
  throw refused(member, 'an object', JSON.stringify(value) ?? 'absent');
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw refused('header', 'JSON', text.slice(0, 100));
  }
}

function refused(member: string, expected: string, actual: string): SealpodError {
  return new SealpodError('VOLUME_FORMAT', `the header of the encrypted volume is refused: ${member}`, {
    expected,
    actual: actual.slice(0, 200),
    fix: 'the host altered it, or it was made with other settings: use a new volume',
  });
}
