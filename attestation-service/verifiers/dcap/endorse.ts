import type { Quote } from '@sealpod/protocol/dcap';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { type Certificate, parseCertificate, parsePemCertificates } from '../../endorsements/certificate.ts';
import type { EnrolledRoot } from '../../endorsements/certificate-path.ts';
import type { Collateral, IntelCollateral } from '../../endorsements/intel/collateral.ts';
import type { Verified } from '../../endorsements/intel/signed-document.ts';
import type { EnclaveIdentity, TcbInfo } from '../../endorsements/intel/tcb-info.ts';
import type { RevocationList } from '../../endorsements/revocation-list.ts';
import { hasPlatformExtension, type PckCertificate, readPckCertificate } from './pck-certificate.ts';

/** Whose quotes are accepted, and where the collateral comes from. */
export interface DcapRules {
  readonly root: EnrolledRoot;
  readonly collateral: IntelCollateral;
  /** Collateral past its date is used, and a claim says so. Otherwise it refuses. */
  readonly acceptExpiredCollateral: boolean;
}

/** What a quote is verified with: collateral whose signatures hold, and the platform's certificate, of which nothing is verified. */
export interface DcapEndorsements {
  readonly pck: PckCertificate;
  /** Certificates that came with that of the platform. */
  readonly authorities: readonly Certificate[];
  readonly tcbInfo: Collateral<Verified<TcbInfo>>;
  readonly qeIdentity: Collateral<Verified<EnclaveIdentity>>;
  readonly pckRevocationList: Collateral<Verified<RevocationList>>;
  readonly rootRevocationList: Collateral<RevocationList>;
}

/**
 * Collects what a quote is verified with.
 *
 * @returns the problem where the certificate of the platform is not to be had, or is none
 */
export async function endorseQuote(
  quote: Quote,
  collateral: IntelCollateral,
  now: Date,
): Promise<DcapEndorsements | SealpodError> {
  try {
    const certificates = await platformCertificates(quote, collateral);
    // Whatever their order: only the platform's has the extension. Without one, the first is told to lack it.
    const leaf = certificates.find(hasPlatformExtension) ?? certificates[0];
    const authorities = certificates.filter((certificate) => certificate !== leaf);
    if (leaf === undefined) throw new SealpodError('EV_FORMAT', 'the quote has no certificate of its platform');
    const pck = readPckCertificate(leaf);
    const { tee } = quote.body;
    const [tcbInfo, qeIdentity, pckRevocationList, rootRevocationList] = await Promise.all([
      collateral.tcbInfo(tee, pck.fmspc.toString('hex').toUpperCase(), now),
      collateral.qeIdentity(tee, now),
      collateral.pckRevocationList(pck.authority, now),
      collateral.rootRevocationList(now),
    ]);
    return { pck, authorities, tcbInfo, qeIdentity, pckRevocationList, rootRevocationList };
  } catch (thrown) {
    return asSealpodError(thrown);
  }
}

async function platformCertificates(
  { header, qe: { certification } }: Quote,
  collateral: IntelCollateral,
): Promise<readonly Certificate[]> {
  switch (certification.kind) {
    case 'certificate-chain':
      return parsePemCertificates(certification.chain);
    case 'leaf-certificate': {
      const { certificate } = certification;
      return certificate[0] === 0x30
        ? [parseCertificate(certificate)]
        : parsePemCertificates(certificate.toString('latin1'));
    }
    case 'platform-id': {
      const { platformId, cpuSvn, pceSvn, pceId } = certification;
      const qeId = header.userData.subarray(0, 16);
      let away: SealpodError | undefined;
      for (const source of collateral.sources) {
        try {
          const chain = await source.pckChain?.({ encryptedPlatformId: platformId, cpuSvn, pceSvn, pceId, qeId });
          if (chain !== undefined) return parsePemCertificates(chain.toString('latin1'));
        } catch (thrown) {
          away ??= asSealpodError(thrown);
        }
      }
      if (away !== undefined) throw away;
      throw new SealpodError('EV_COLLATERAL_UNAVAILABLE', 'no source has the certificate of the platform', {
        expected: 'a quote that brings it, or a source that has it',
        actual: `certification data of type ${certification.type}`,
      });
    }
    case 'platform-manifest':
      throw new SealpodError('EV_CERT_CHAIN', 'the quote is of a platform that is not registered yet', {
        expected: 'certification data of type 5',
        actual: 'type 7',
      });
  }
}
