import { createHash } from 'node:crypto';
import { regularise } from '@sealpod/protocol/rcar';
import { Algorithm, AttestType, attestMagic, hashName, pcrCount, verifySignature } from '@sealpod/protocol/tpm';
import type { Verdict } from '@sealpod/protocol/verdict';
import { check } from '../check.ts';
import type { TpmStatement } from './statement.ts';

/** Upstream's field width for a TPM: the digest is cut to its first 32 bytes. */
const qualifyingBytes = 32;

/** The structure was made by a TPM (a restricted key signs nothing else that begins so) and is a quote. */
export function checkStructure({ attest }: Pick<TpmStatement, 'attest'>): Verdict {
  const shown = ({ magic, type }: { magic: number; type: number }): string =>
    `${magic.toString(16)} ${type.toString(16)}`;
  const wanted = { magic: attestMagic, type: AttestType.quote };
  return check('quote structure', shown(attest) === shown(wanted), 'EV_SIGNATURE', {
    expected: shown(wanted),
    actual: shown(attest),
    source: 'TPM 2.0 Part 2 §10.12.12',
  });
}

/** The attestation key signed the quote. */
export function checkSignature({
  attestationKey,
  attestBytes,
  signature,
}: Pick<TpmStatement, 'attestationKey' | 'attestBytes' | 'signature'>): Verdict {
  return check('quote signature', verifySignature(attestationKey, signature, attestBytes), 'EV_SIGNATURE', {
    expected: 'a signature by the attestation key',
    actual: 'does not verify',
  });
}

/** Whether the quote is qualified by the digest of this session's nonce and key. */
export function bindingHolds({ attest }: TpmStatement, reportData: Buffer | undefined): boolean {
  return reportData !== undefined && attest.extraData.equals(regularise(reportData, qualifyingBytes));
}

/** Exactly the 24 registers of the SHA-256 bank: with fewer, a value could stand at another register's place. */
export function checkSelection({ quote }: Pick<TpmStatement, 'quote'>): Verdict {
  const shown = (quote?.selection ?? [])
    .map(({ hash, registers }) => `0x${hash.toString(16)}:${registers.join(',')}`)
    .join(' ');
  const all = `0x${Algorithm.sha256.toString(16)}:${Array.from({ length: pcrCount }, (_, index) => index).join(',')}`;
  return check('quoted registers', shown === all, 'EV_SIGNATURE', { expected: all, actual: shown || 'none' });
}

/** The register values sent along are those that were quoted. */
export function checkPcrDigest({
  quote,
  pcrs,
  signature,
}: Pick<TpmStatement, 'quote' | 'pcrs' | 'signature'>): Verdict {
  // TPM2_Quote digests the registers with the hash of its signing scheme (Part 3 §18.4).
  const digest = createHash(hashName(signature.hash) ?? 'sha256')
    .update(Buffer.concat(pcrs))
    .digest();
  return check('register values', quote?.pcrDigest.equals(digest) ?? false, 'EV_SIGNATURE', {
    expected: quote?.pcrDigest.toString('hex') ?? 'a quote',
    actual: digest.toString('hex'),
    source: 'quoted digest of the registers',
  });
}
