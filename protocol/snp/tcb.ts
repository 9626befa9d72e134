import type { SnpGeneration } from './generation.ts';

/** Security version numbers of the firmware parts, each 0 to 255. `fmc` exists since Turin. */
export interface SnpTcb {
  readonly fmc?: number;
  readonly bootloader: number;
  readonly tee: number;
  readonly snp: number;
  readonly microcode: number;
}

/** Where each part stands in the eight bytes of a TCB version (SEV-SNP ABI, section 2.2). */
const layouts: Readonly<Record<'before Turin' | 'Turin', Readonly<Record<string, number>>>> = {
  'before Turin': { bootloader: 0, tee: 1, snp: 6, microcode: 7 },
  Turin: { fmc: 0, bootloader: 1, tee: 2, snp: 3, microcode: 7 },
};

/** Bytes of a TCB version. */
export const tcbBytes = 8;

/** Reads a TCB version; bytes between the parts are reserved and not looked at. */
export function parseSnpTcb(bytes: Uint8Array, generation: SnpGeneration | undefined): SnpTcb {
  const layout = layouts[generation === 'Turin' ? 'Turin' : 'before Turin'];
  return Object.fromEntries(Object.entries(layout).map(([part, at]) => [part, bytes[at] ?? 0])) as unknown as SnpTcb;
}

/** The eight bytes of a TCB version, reserved bytes zero. */
export function encodeSnpTcb(tcb: SnpTcb, generation: SnpGeneration | undefined): Buffer {
  const bytes = Buffer.alloc(tcbBytes);
  const parts: Readonly<Record<string, number | undefined>> = { ...tcb };
  for (const [part, at] of Object.entries(layouts[generation === 'Turin' ? 'Turin' : 'before Turin']))
    bytes[at] = parts[part] ?? 0;
  return bytes;
}
