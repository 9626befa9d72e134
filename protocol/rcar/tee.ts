/**
 * Names of TEEs on the wire (kbs-types), and the class each is appraised under in an EAR.
 */
const classes = {
  'aws-nitro': 'cpu',
  'az-snp-vtpm': 'cpu',
  'az-tdx-vtpm': 'cpu',
  cca: 'cpu',
  csv: 'cpu',
  hygondcu: 'dcu',
  nvidia: 'gpu',
  nvidiadpu: 'nvidia-dpu',
  'nvidia-dpu': 'nvidia-dpu',
  sample: 'cpu',
  sampledevice: 'gpu',
  se: 'cpu',
  sgx: 'cpu',
  snp: 'cpu',
  tdx: 'cpu',
  tpm: 'cpu',
} as const;

/** A TEE name of RCAR 0.4.0; names are case-sensitive. */
export type TeeName = keyof typeof classes;

/** All TEE names that the protocol knows, whether or not a verifier is enabled. */
export const teeNames: readonly TeeName[] = Object.keys(classes).filter(isTee);

/** Whether `name` is a TEE name of the protocol. */
export function isTee(name: string): name is TeeName {
  return Object.hasOwn(classes, name);
}

/** The submodule class: `cpu` → `cpu0`, policy `<id>_cpu`. */
export function teeClassOf(tee: TeeName): string {
  return classes[tee];
}
