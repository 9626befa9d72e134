import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import { componentReferenceValues } from '../verifiers/tpm/claims.ts';

/** One claim that the policies that come with the service hold against a reference value. */
export interface MeasuredClaim {
  /** The reference value's id. */
  readonly id: string;
  /** What it is, for people, e.g. `launch measurement`. */
  readonly name: string;
  /** `in`: the reference value is a list of what is accepted. `equal`: one value. `at-least`: a number. */
  readonly relation: 'in' | 'equal' | 'at-least';
  readonly read: (claims: JsonObject) => JsonValue | undefined;
}

/** Measured claims of a TEE; none for a TEE whose claims are held against no reference value. */
export function measuredClaims(tee: string): readonly MeasuredClaim[] {
  return Object.hasOwn(measured, tee) ? (measured[tee] ?? []) : [];
}

/** What is in a claim's place, or undefined. */
function at(claims: JsonValue | undefined, path: readonly string[]): JsonValue | undefined {
  let value = claims;
  for (const name of path) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
    value = Object.hasOwn(value, name) ? (value as JsonObject)[name] : undefined;
  }
  return value;
}

function claim(id: string, path: string, relation: MeasuredClaim['relation'] = 'in'): MeasuredClaim {
  const names = path.split('/');
  return { id, name: (names.at(-1) ?? path).replaceAll('_', ' '), relation, read: (claims) => at(claims, names) };
}

/** The digests of the first event of a log that `matches`. */
function eventDigest(id: string, name: string, matches: (event: JsonObject) => boolean): MeasuredClaim {
  const read = (claims: JsonObject): JsonValue | undefined => {
    const log = claims['uefi_event_logs'];
    const events = Array.isArray(log) ? (log as readonly JsonObject[]) : [];
    const digests = at(events.find(matches), ['digests']);
    return Array.isArray(digests) ? at(digests[0] as JsonValue, ['digest']) : undefined;
  };
  return { id, name, relation: 'in', read };
}

const quote = [claim('mr_td', 'quote/body/mr_td'), claim('xfam', 'quote/body/xfam')] as const;

const isKernel = (event: JsonObject): boolean => {
  const paths = at(event, ['details', 'device_paths']);
  return (
    event['type_name'] === 'EV_EFI_BOOT_SERVICES_APPLICATION' && Array.isArray(paths) && paths.includes('File(kernel)')
  );
};
const isCommandLine = (event: JsonObject): boolean =>
  event['type_name'] === 'EV_EVENT_TAG' && at(event, ['details', 'string']) === 'LOADED_IMAGE::LoadOptions';

const measured: Readonly<Record<string, readonly MeasuredClaim[]>> = {
  sample: [
    claim('launch_digest', 'launch_digest'),
    claim('svn', 'svn'),
    claim('major_version', 'platform_version/major', 'equal'),
    claim('minimum_minor_version', 'platform_version/minor', 'at-least'),
  ],
  tpm: Object.entries(componentReferenceValues).map(([name, id]) => claim(id, `components/${name}`)),
  snp: [
    claim('snp_launch_measurement', 'measurement'),
    claim('snp_bootloader', 'reported_tcb_bootloader'),
    claim('snp_microcode', 'reported_tcb_microcode'),
    claim('snp_snp_svn', 'reported_tcb_snp'),
    claim('snp_tee_svn', 'reported_tcb_tee'),
    claim('snp_smt_enabled', 'platform_smt_enabled', 'equal'),
    claim('snp_tsme_enabled', 'platform_tsme_enabled', 'equal'),
    claim('snp_guest_abi_major', 'policy_abi_major', 'equal'),
    claim('snp_guest_abi_minor', 'policy_abi_minor', 'equal'),
    claim('snp_single_socket', 'policy_single_socket', 'equal'),
    claim('snp_smt_allowed', 'policy_smt_allowed', 'equal'),
  ],
  'az-snp-vtpm': [
    claim('measurement', 'measurement'),
    claim('snp_pcr11', 'tpm/pcr11'),
    claim('tcb_bootloader', 'reported_tcb_bootloader'),
    claim('tcb_microcode', 'reported_tcb_microcode'),
    claim('tcb_snp', 'reported_tcb_snp'),
    claim('tcb_tee', 'reported_tcb_tee'),
    claim('smt_enabled', 'platform_smt_enabled'),
    claim('tsme_enabled', 'platform_tsme_enabled'),
    claim('abi_major', 'policy_abi_major'),
    claim('abi_minor', 'policy_abi_minor'),
    claim('single_socket', 'policy_single_socket'),
    claim('smt_allowed', 'policy_smt_allowed'),
  ],
  tdx: [
    ...quote,
    claim('rtmr_1', 'quote/body/rtmr_1'),
    claim('rtmr_2', 'quote/body/rtmr_2'),
    eventDigest('tdvfkernel', 'kernel', isKernel),
    eventDigest('tdvfkernelparams', 'kernel parameters', isCommandLine),
  ],
  'az-tdx-vtpm': [...quote, claim('tdx_pcr11', 'tpm/pcr11')],
  sgx: [
    claim('sgx_mr_enclave', 'body/mr_enclave'),
    claim('sgx_mr_signer', 'body/mr_signer'),
    claim('sgx_isv_prod_id', 'body/isv_prod_id'),
    claim('sgx_isv_svn', 'body/isv_svn'),
  ],
  cca: [claim('cca_realm_initial_measurement', 'realm/cca-realm-initial-measurement')],
  csv: [claim('csv_measure', 'measure'), claim('csv_build', 'build')],
  hygondcu: [claim('dcu_measure', 'body/measure')],
  'aws-nitro': ['pcr0', 'pcr1', 'pcr2'].map((name) => claim(`nitro_${name}`, name)),
  'nvidia-dpu': [
    claim('dpu_accumulated_fwid', 'accumulated_fwid'),
    claim('dpu_device_class', 'device_class'),
    claim('dpu_firmware_layers_count', 'firmware_layers_count'),
  ],
  nvidia: [
    claim('allowed_vbios_versions', 'config/vbios_version'),
    claim('allowed_driver_versions', 'config/driver_version'),
  ],
};

/**
 * The reference values that verified claims would match: what a machine was measured to be, under the ids of the policies
 * that come with the service.
 *
 * @throws SealpodError UNSUPPORTED for a TEE whose claims no such policy holds against anything
 */
export function learnable(tee: string, claims: JsonObject): JsonObject {
  const values = measuredClaims(tee).flatMap(({ id, relation, read }) => {
    const value = read(claims);
    return value === undefined || value === null ? [] : [[id, relation === 'in' ? [value] : value] as const];
  });
  if (values.length === 0) {
    throw new SealpodError('UNSUPPORTED', `no reference value can be learned from ${tee.slice(0, 32)} evidence`, {
      expected: `one of: ${Object.keys(measured).join(', ')}`,
      actual: tee.slice(0, 32),
      fix: 'register the values that your policy asks for with `sealpod refvalue put`',
    });
  }
  return Object.fromEntries(values);
}

/** Whether a claim fits a reference value. */
export function fits({ relation }: Pick<MeasuredClaim, 'relation'>, actual: JsonValue, accepted: JsonValue): boolean {
  if (relation === 'at-least') return typeof actual === 'number' && typeof accepted === 'number' && actual >= accepted;
  const same = (one: JsonValue): boolean => JSON.stringify(one) === JSON.stringify(actual);
  if (Array.isArray(accepted) && (accepted as readonly JsonValue[]).some(same)) return true;
  return same(accepted);
}
