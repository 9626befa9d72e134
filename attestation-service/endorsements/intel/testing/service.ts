import type { ServerResponse } from 'node:http';
import { platform, type TestIntel } from '../../../verifiers/dcap/testing/authority.ts';
import { type CollateralOptions, mintSource } from '../../../verifiers/dcap/testing/collateral.ts';
import type { IntelAnswer } from '../source.ts';

/** Answers one request as Intel's service does: `path` with its query. */
export type Serve = (path: string, response: ServerResponse) => Promise<void> | void;

const fmspc = platform.fmspc.toString('hex').toUpperCase();

/** A test's Intel as a provisioning service. Lists in hexadecimal are of caching services. */
export function intelService(
  intel: TestIntel,
  options: CollateralOptions = {},
  lists: 'der' | 'hexadecimal' = 'der',
): Serve {
  const source = mintSource(intel, options);
  const find = async (path: string): Promise<readonly [IntelAnswer | undefined, string]> => {
    const tee = path.includes('/tdx/') ? 'tdx' : 'sgx';
    if (path.includes('/tcb?')) return [await source.tcbInfo(tee, fmspc), 'TCB-Info-Issuer-Chain'];
    if (path.includes('/qe/identity')) return [await source.qeIdentity(tee), 'SGX-Enclave-Identity-Issuer-Chain'];
    if (path.includes('/pckcrl?')) {
      const authority = path.includes('ca=platform') ? 'platform' : 'processor';
      return [await source.pckRevocationList(authority), 'SGX-PCK-CRL-Issuer-Chain'];
    }
    const isRootList = path.includes('/rootcacrl') || path.endsWith('/root.der');
    return [isRootList ? await source.rootRevocationList() : undefined, ''];
  };
  return async (path, response) => {
    const [found, header] = await find(path);
    if (found === undefined) return void response.writeHead(404).end();
    const isList = !path.includes('/tcb?') && !path.includes('/qe/identity');
    const { document, issuerChain = '' } = found;
    response.writeHead(200, header === '' ? {} : { [header]: encodeURIComponent(issuerChain) });
    response.end(isList && lists === 'hexadecimal' ? document.toString('hex') : document);
  };
}

/** The collateral of quotes of a test's platform, as a bundle's file holds it. */
export async function quoteCollateral(
  intel: TestIntel,
  tee: 'sgx' | 'tdx',
  authority: 'platform' | 'processor',
  options: CollateralOptions = {},
): Promise<Readonly<Record<string, string>>> {
  const source = mintSource(intel, options);
  const info = await source.tcbInfo(tee, fmspc);
  const identity = await source.qeIdentity(tee);
  const list = await source.pckRevocationList(authority);
  const rootList = await source.rootRevocationList();
  return {
    tcb_info: String(info?.document),
    tcb_info_issuer_chain: info?.issuerChain ?? '',
    qe_identity: String(identity?.document),
    qe_identity_issuer_chain: identity?.issuerChain ?? '',
    pck_crl: list?.document.toString('hex') ?? '',
    pck_crl_issuer_chain: list?.issuerChain ?? '',
    root_ca_crl: rootList?.document.toString('hex') ?? '',
  };
}
