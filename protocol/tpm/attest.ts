import { type PcrSelection, parsePcrSelection } from './pcr-selection.ts';
import { TpmReader } from './reader.ts';

/** TPM_GENERATED_VALUE: what a TPM puts first into everything it signs with a restricted key. */
export const attestMagic = 0xff54_4347;

/** TPM_ST of attestation structures. */
export const AttestType = { quote: 0x8018 } as const;

/** TPMS_ATTEST (Part 2 §10.12.12). Parsed only: signature, magic and type are for the verifier. */
export interface AttestStructure {
  readonly magic: number;
  readonly type: number;
  readonly qualifiedSigner: Buffer;
  /** Qualifying data: what the caller of the TPM asked to be signed with it. */
  readonly extraData: Buffer;
  readonly clock: {
    /** Milliseconds that the TPM has been powered. */
    readonly time: bigint;
    readonly resetCount: number;
    readonly restartCount: number;
    /** False where a value of `time` may have been reported before (after an unorderly shutdown). */
    readonly safe: boolean;
  };
  readonly firmwareVersion: bigint;
  /** TPMU_ATTEST, shaped by `type`. */
  readonly attested: Buffer;
}

/** TPMS_QUOTE_INFO (Part 2 §10.12.4). */
export interface QuoteInfo {
  readonly selection: readonly PcrSelection[];
  readonly pcrDigest: Buffer;
}

/** @throws SealpodError EV_FORMAT */
export function parseAttest(bytes: Uint8Array): AttestStructure {
  const reader = new TpmReader(bytes, 'TPMS_ATTEST');
  const magic = reader.uint32();
  const type = reader.uint16();
  const qualifiedSigner = reader.sized();
  const extraData = reader.sized();
  const time = reader.uint64();
  const resetCount = reader.uint32();
  const restartCount = reader.uint32();
  const safe = reader.uint8();
  if (safe > 1) throw reader.fail('the safe flag is neither 0 nor 1');
  return {
    magic,
    type,
    qualifiedSigner,
    extraData,
    clock: { time, resetCount, restartCount, safe: safe === 1 },
    firmwareVersion: reader.uint64(),
    attested: reader.rest(),
  };
}

/** Reads `attested` of a quote. @throws SealpodError EV_FORMAT */
export function parseQuoteInfo(attested: Uint8Array): QuoteInfo {
  const reader = new TpmReader(attested, 'TPMS_QUOTE_INFO');
  const selection = parsePcrSelection(reader);
  const pcrDigest = reader.sized();
  reader.end();
  return { selection, pcrDigest };
}
