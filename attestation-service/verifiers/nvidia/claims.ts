import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import {
  type NvidiaArchitecture,
  type NvidiaDevice,
  type NvidiaReport,
  type OpaqueField,
  OpaqueType,
} from '@sealpod/protocol/nvidia';

/** Architectures as upstream's claims spell them. */
const architectureNames: Readonly<Record<NvidiaArchitecture, string>> = {
  HOPPER: 'Hopper',
  BLACKWELL: 'Blackwell',
  LS10: 'LS10',
};

/** Class of the submodule that a device becomes. */
export function deviceClass(architecture: NvidiaArchitecture): 'gpu' | 'switch' {
  return architecture === 'LS10' ? 'switch' : 'gpu';
}

/**
 * The claims of a locally verified device as upstream has them: `arch`, `uuid`, `measurements` by index, and `config`
 * with the opaque fields by name.
 *
 * @throws SealpodError EV_FORMAT for a field whose value cannot be what its type says
 */
export function deviceClaims({ architecture, uuid }: NvidiaDevice, { response }: NvidiaReport): JsonObject {
  const measurements = [...response.measurements].map(([index, { value }]) => [index, value.toString('hex')]);
  const config = [...response.opaqueData.fields.values()].map((field) => [field.name, fieldClaim(field, architecture)]);
  return {
    arch: architectureNames[architecture],
    uuid,
    measurements: Object.fromEntries(measurements),
    config: Object.fromEntries(config),
  };
}

/** Fields whose bytes are text; the two status bytes among them come out as the character, which is upstream's quirk. */
const texts = new Set([
  'driver_version',
  'chip_sku',
  'chip_sku_mod',
  'nvdec0_status',
  'project',
  'project_sku',
  'protected_pcie_status',
  'chip_info',
]);

function fieldClaim(field: OpaqueField, architecture: NvidiaArchitecture): JsonValue {
  const { type, name, value } = field;
  if (texts.has(name)) return fieldText(field);
  if (type === OpaqueType.vbiosVersion) return firmwareVersion(value, architecture);
  if (type === OpaqueType.measurementCount)
    return Object.fromEntries(words(field, 4).map((count, index) => [index + 1, count.readUInt32LE(0)]));
  if (type === OpaqueType.switchPdi && deviceClass(architecture) === 'gpu')
    return words(field, 8).map((pdi) => pdi.toString('hex'));
  if (type === OpaqueType.opaqueDataVersion) return integer(field);
  if (type === OpaqueType.featureFlag) return ['SPT', 'MPT', 'PPCIE'][integer(field)] ?? 'unknown';
  return value.toString('hex');
}

/** Text up to its zeros at the end. */
export function fieldText({ value }: OpaqueField): string {
  return value.toString('utf8').replace(/\0+$/, '');
}

/** A switch tells its firmware version as text; a GPU as bytes: the first half reversed, then the byte after it. */
export function firmwareVersion(value: Buffer, architecture: NvidiaArchitecture): string {
  if (deviceClass(architecture) === 'switch') return value.toString('utf8').replace(/\0+$/, '');
  const half = Math.floor(value.length / 2);
  return [...[...value.subarray(0, half)].reverse(), value[half] ?? 0]
    .map((byte) => byte.toString(16).padStart(2, '0'))
    .join('.');
}

/** The value in pieces of `size` bytes. */
export function words({ name, value }: OpaqueField, size: number): Buffer[] {
  if (value.length % size !== 0)
    throw new SealpodError('EV_FORMAT', `malformed field ${name} of an NVIDIA report`, {
      expected: `a multiple of ${size} bytes`,
      actual: `${value.length}`,
    });
  return Array.from({ length: value.length / size }, (_, index) => value.subarray(index * size, (index + 1) * size));
}

function integer({ name, value }: OpaqueField): number {
  if (value.length === 0 || value.length > 8 || value.subarray(6).some((byte) => byte !== 0))
    throw new SealpodError('EV_FORMAT', `malformed field ${name} of an NVIDIA report`, {
      expected: 'an integer of 1 to 6 bytes',
      actual: `${value.length} bytes`,
    });
  return value.readUIntLE(0, Math.min(value.length, 6));
}
