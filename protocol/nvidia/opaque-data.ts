import { SealpodError } from '../errors.ts';
import { SpdmReader } from './reader.ts';

/** One field that a device tells about itself beside its measurements. */
export interface OpaqueField {
  readonly type: number;
  /** Name in upstream's claims, e.g. `driver_version`; `unknown_<type>` for a type that this release does not know. */
  readonly name: string;
  readonly value: Buffer;
  /** Kind of the value; only in the form with a header. */
  readonly valueType?: number;
}

/** Opaque data of NVIDIA's devices. */
export interface OpaqueData {
  /** Major version of the header; undefined in the form that has none. */
  readonly headerVersion?: number;
  readonly fields: ReadonlyMap<number, OpaqueField>;
}

/** Types and their names in upstream's claims (trustee: nvidia). 26 is the switch's own (NVIDIA's attestation SDK). */
const names: Readonly<Record<number, string>> = {
  1: 'cert_issuer_name',
  2: 'cert_authority_key_identifier',
  3: 'driver_version',
  4: 'gpu_info',
  5: 'id_sku',
  6: 'vbios_version',
  7: 'manufacturer_id',
  8: 'tamper_detection',
  9: 'smc',
  10: 'vpr',
  11: 'nvdec0_status',
  12: 'measurement_count',
  13: 'cpr_info',
  14: 'board_id',
  15: 'chip_sku',
  16: 'chip_sku_mod',
  17: 'project',
  18: 'project_sku',
  19: 'project_sku_mod',
  20: 'fwid',
  21: 'protected_pcie_status',
  22: 'switch_pdi',
  23: 'floorswept_ports',
  24: 'position_id',
  25: 'lock_switch_status',
  26: 'switch_gpu_pdis',
  32: 'gpu_link_conn',
  33: 'sys_enable_status',
  34: 'opaque_data_version',
  35: 'chip_info',
  36: 'feature_flag',
};

/** Types of opaque fields that something here relies on. */
export const OpaqueType = {
  driverVersion: 3,
  vbiosVersion: 6,
  nvdec0Status: 11,
  measurementCount: 12,
  chipSku: 15,
  project: 17,
  projectSku: 18,
  fwid: 20,
  switchPdi: 22,
  switchGpuPdis: 26,
  opaqueDataVersion: 34,
  chipInfo: 35,
  featureFlag: 36,
} as const;

const invalidType = 255;
const magic = Buffer.from('NVDAOD');
const headerBytes = 12;
const maxFields = 128;

/**
 * Reads the fields: type, size, value, one after the other; devices since Blackwell may put a header before them and a
 * kind into each (NVIDIA's attestation SDK, opaque data). A type that is not known is kept, for new firmware brings some.
 *
 * @throws SealpodError EV_FORMAT where malformed, or where a type stands twice
 */
export function parseOpaqueData(bytes: Buffer): OpaqueData {
  const what = 'opaque data of an NVIDIA report';
  const hasHeader = bytes.length >= headerBytes && bytes.subarray(0, magic.length).equals(magic);
  const reader = new SpdmReader(bytes, what);
  const headerVersion = hasHeader ? headerVersionOf(reader.bytes(headerBytes)) : undefined;
  const fields = new Map<number, OpaqueField>();
  while (reader.remaining > 0) {
    const type = reader.integer(2);
    const valueType = hasHeader ? reader.integer(2) : undefined;
    const value = reader.bytes(reader.integer(2));
    if (type === invalidType || fields.has(type) || fields.size >= maxFields)
      throw new SealpodError('EV_FORMAT', `malformed ${what}`, {
        expected: `at most ${maxFields} fields, each type once`,
        actual: `type ${type} at byte ${reader.position}`,
      });
    const name = names[type] ?? `unknown_${type}`;
    fields.set(type, { type, name, value, ...(valueType === undefined ? {} : { valueType }) });
  }
  return { fields, ...(headerVersion === undefined ? {} : { headerVersion }) };
}

/** Header: magic, profile (16 bits, zero), major and minor version, reserved. */
function headerVersionOf(header: Buffer): number {
  const profile = header.readUInt16LE(6);
  if (profile !== 0)
    throw new SealpodError('EV_FORMAT', 'opaque data of an unknown profile', { expected: '0', actual: `${profile}` });
  return header.readUInt8(8);
}
