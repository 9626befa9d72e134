import type { SnpGeneration, SnpTcb } from '@sealpod/protocol/snp';

/** Which certificate of a chip is wanted. */
export interface ChipKeyRequest {
  readonly generation: SnpGeneration;
  /** 64 bytes. */
  readonly chipId: Buffer;
  readonly tcb: SnpTcb;
}

/**
 * A place that has AMD's certificates and revocation lists. Answers are bytes that nobody has verified; undefined where
 * the place does not have it.
 *
 * @throws SealpodError EV_COLLATERAL_UNAVAILABLE where the place cannot be asked
 */
export interface AmdEndorsementSource {
  /** For explanations, e.g. `AMD key distribution service`. */
  readonly name: string;
  /** The certificate of the chip's VCEK at a TCB, DER. */
  chipKey(request: ChipKeyRequest): Promise<Buffer | undefined>;
  /** The revocation list of the generation's root, DER. */
  revocationList(generation: SnpGeneration): Promise<Buffer | undefined>;
}

/** The chip id as AMD's service and the offline store name it: Turin uses its first eight bytes. */
export function chipName(generation: SnpGeneration, chipId: Buffer): string {
  return (generation === 'Turin' ? chipId.subarray(0, 8) : chipId).toString('hex');
}

/** The versions of a TCB in two decimal digits, in AMD's order. */
export function tcbDigits({ fmc, bootloader, tee, snp, microcode }: SnpTcb): Readonly<Record<string, string>> {
  const digits = (value: number): string => String(value).padStart(2, '0');
  return {
    ...(fmc === undefined ? {} : { fmc: digits(fmc) }),
    bl: digits(bootloader),
    tee: digits(tee),
    snp: digits(snp),
    ucode: digits(microcode),
  };
}
