import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject } from '@sealpod/protocol/json';
import type { EnrolledRoot } from '../endorsements/certificate-path.ts';
import { enrolRoots, type RootConfiguration } from '../endorsements/enrolled-roots.ts';
import { IntelCollateral } from '../endorsements/intel/collateral.ts';
import { type CollateralUpdate, collateralDocument } from '../endorsements/intel/collateral-document.ts';
import { intelRoot } from '../endorsements/intel/root.ts';
import type { DcapRules } from '../verifiers/dcap/endorse.ts';

/** What quotes of TDs are verified with. Nothing is fetched, and without collateral no quote verifies. */
export interface TdxOptions {
  /**
   * Collateral of the quote's platform: the members of Intel's `sgx_ql_qve_collateral_t` (`tcb_info` and `tcb_info_signature`,
   * `qe_identity` and `qe_identity_signature`, `pck_crl`, `root_ca_crl`, and the issuers' chains), as Intel's library and
   * others write them, or the file of Intel's PCS Client Tool. `pck_certificate_chain` (PEM) is only needed for a quote that
   * does not bring its certificates.
   */
  readonly collateral?: JsonObject;
  /** Which of Intel's channels counts in a file of the PCS Client Tool, which holds both. Default: `early`. */
  readonly update?: CollateralUpdate;
  /** Collateral past its date is used, and the claim `collateral_expiration_status` says so. Default false: it refuses. */
  readonly acceptExpiredCollateral?: boolean;
  /** Stands in the place of Intel's root, for quotes made by a test. */
  readonly root?: RootConfiguration;
}

/**
 * Rules under which the service's verifier looks at quotes. Nothing is remembered between calls, so older collateral that is
 * still current is not a rollback here: compare the claim `tcb_eval_num`.
 *
 * @throws SealpodError USAGE for an unusable root
 */
export function tdxRules({ collateral, update, acceptExpiredCollateral = false, root }: TdxOptions): DcapRules {
  const trusted = root === undefined ? intelRoot() : onlyRoot(root);
  return {
    root: trusted,
    collateral: new IntelCollateral({
      sources: collateral === undefined ? [] : [collateralDocument(collateral, update)],
      root: trusted,
      seen: { check: async () => undefined },
      channel: 'given',
    }),
    acceptExpiredCollateral,
  };
}

/** @throws SealpodError USAGE */
export function onlyRoot(configuration: RootConfiguration): EnrolledRoot {
  const [enrolled] = enrolRoots([configuration]);
  if (enrolled === undefined) throw new SealpodError('USAGE', 'the root is unusable');
  return enrolled;
}
