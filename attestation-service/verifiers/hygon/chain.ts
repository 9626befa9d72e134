import { createHash } from 'node:crypto';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import {
  type HygonCertificate,
  type HygonChipChain,
  hygonAuthorityBytes,
  hygonKeyBytes,
  hygonSm2Signature,
  hygonUsage,
  parseHygonAuthority,
  parseHygonKey,
  type Sm2Signature,
} from '@sealpod/protocol/hygon';
import type { Verdict } from '@sealpod/protocol/verdict';
import type { HygonEndorsementSource } from '../../endorsements/hygon/sources.ts';
import { check } from '../check.ts';
import { verifySm2 } from './sm2.ts';

/** The certificates of a chip, or why there are none. */
export type ChipChainResult =
  | { readonly chain: HygonChipChain; readonly source: string }
  | { readonly problem: SealpodError };

/** Asks sources in their order for the certificates of a chip. */
export async function fetchChipChain(
  serialNumber: string,
  sources: readonly HygonEndorsementSource[],
): Promise<ChipChainResult> {
  let problem: SealpodError | undefined;
  for (const source of sources) {
    try {
      const bytes = await source.chipChain(serialNumber);
      if (bytes !== undefined) return { chain: parseChipChain(bytes), source: source.name };
    } catch (thrown) {
      problem ??= asSealpodError(thrown);
    }
  }
  return {
    problem:
      problem ??
      new SealpodError('EV_COLLATERAL_UNAVAILABLE', 'no source has the certificates of this chip', {
        expected: `one of: ${sources.map(({ name }) => name).join(', ') || 'no source is configured'}`,
        actual: `chip ${serialNumber}`,
      }),
  };
}

/** The certificate of the signing key, then that of the chip. @throws SealpodError EV_FORMAT */
function parseChipChain(bytes: Buffer): HygonChipChain {
  if (bytes.length !== hygonAuthorityBytes + hygonKeyBytes) {
    throw new SealpodError('EV_FORMAT', 'the certificates of a chip are of the wrong size', {
      expected: `${hygonAuthorityBytes + hygonKeyBytes} bytes`,
      actual: `${bytes.length}`,
    });
  }
  return {
    hsk: parseHygonAuthority(bytes.subarray(0, hygonAuthorityBytes)),
    cek: parseHygonKey(bytes.subarray(hygonAuthorityBytes)),
  };
}

/** What is wrong where the certificates of a chip could not be had. */
export function missingChain({ code, message, detail }: SealpodError): Verdict {
  return { check: 'certificates of the chip', code, actual: message, ...detail };
}

/** The root signed the signing key, which signed the chip's key. */
export function checkChipChain({ hsk, cek }: HygonChipChain, root: HygonCertificate): Verdict[] {
  return [
    checkIssued('signing key (HSK)', hsk, hygonUsage.hsk, root),
    check(
      'issuer of the signing key',
      hsk.ids?.signer.equals(root.ids?.key ?? Buffer.alloc(0)) === true,
      'EV_CERT_CHAIN',
      {
        expected: root.ids?.key.toString('hex') ?? '',
        actual: hsk.ids?.signer.toString('hex') ?? '',
        source: 'root certificate (HRK)',
      },
    ),
    checkIssued('chip key (CEK)', cek, hygonUsage.cek, hsk),
  ];
}

/** Certificates have no dates and there are no revocation lists: what is verified is use, signer's use and signature. */
export function checkIssued(name: string, subject: HygonCertificate, usage: number, issuer: HygonCertificate): Verdict {
  const signed = subject.signatures.some(
    (candidate) =>
      candidate.usage === issuer.usage &&
      candidate.algorithm === hygonSm2Signature &&
      verifyKept(issuer, subject.signed, candidate.signature),
  );
  return check(name, subject.usage === usage && signed, 'EV_CERT_CHAIN', {
    expected: `a key of usage 0x${usage.toString(16)}, signed by ${issuer.key.identity.toString('latin1')}`,
    actual: `a key of usage 0x${subject.usage.toString(16)}, ${signed ? 'signed' : 'not signed'} by it`,
    source: 'HYGON CSV API, certificates',
  });
}

const kept = new Set<string>();
const mostKept = 1024;

/**
 * Verifies the signature of a certificate, and keeps that it verifies: certificates of a chip come with every report, have no
 * dates, and cost more than all else.
 */
function verifyKept({ key }: HygonCertificate, signed: Buffer, signature: Sm2Signature): boolean {
  const parts = [key.x, key.y, signature.r, signature.s, key.identity, signed];
  const digest = createHash('sha256')
    .update(Buffer.concat([Buffer.from([key.identity.length]), ...parts]))
    .digest('hex');
  if (kept.has(digest)) return true;
  if (!verifySm2(key, signed, signature)) return false;
  const oldest = kept.values().next().value;
  if (kept.size >= mostKept && oldest !== undefined) kept.delete(oldest);
  kept.add(digest);
  return true;
}
