import { type CollateralAnswer, type CollateralHttpOptions, getCollateral } from '../http-client.ts';
import { revocationListBytes } from './revocation-list-bytes.ts';
import type { IntelAnswer, IntelCollateralSource } from './source.ts';

/** Which of Intel's services, and how. */
export interface ProvisioningServiceOptions {
  /** `pcs` is Intel's, `pccs` a cache of it in the data centre. */
  readonly kind: 'pcs' | 'pccs';
  readonly url?: string;
  /** Version of the interface, 4 by default; 3 knows SGX only. */
  readonly version?: 3 | 4;
  /** `early` has each recovery of the TCB at once, `standard` when platforms have had time. Version 4 only. */
  readonly update?: 'early' | 'standard';
  /** Where Intel's own service publishes the list of the root. */
  readonly rootListUrl?: string;
  readonly http?: CollateralHttpOptions;
}

const defaults = {
  pcs: 'https://api.trustedservices.intel.com',
  pccs: 'https://localhost:8081',
  rootList: 'https://certificates.trustedservices.intel.com/IntelSGXRootCA.der',
} as const;

/** Headers that hold the signer's certificates; version 3 named the first otherwise. */
const chainHeaders = {
  tcb: ['tcb-info-issuer-chain', 'sgx-tcb-info-issuer-chain'],
  qe: ['sgx-enclave-identity-issuer-chain'],
  list: ['sgx-pck-crl-issuer-chain'],
  pck: ['sgx-pck-certificate-issuer-chain'],
} as const;

/**
 * Intel's provisioning certification service (PCS), or a caching service (PCCS) that speaks the same interface. The path of
 * a configured URL may name the interface, as in Intel's own configuration files; it is left out.
 */
export function provisioningService(options: ProvisioningServiceOptions): IntelCollateralSource {
  const { kind, version = 4, update, rootListUrl = defaults.rootList, http = {} } = options;
  const base = (options.url ?? defaults[kind]).replace(/\/+$/, '').replace(/\/(sgx|tdx)\/certification\/v\d$/, '');
  const at = (tee: 'sgx' | 'tdx', path: string): string => `${base}/${tee}/certification/v${version}/${path}`;
  const channel = (separator: '?' | '&'): string =>
    update === undefined || version < 4 ? '' : `${separator}update=${update}`;
  return {
    name: `${kind === 'pcs' ? 'provisioning certification service' : 'caching service'} ${base}`,
    tcbInfo: async (tee, fmspc) =>
      answer(await getCollateral(at(tee, `tcb?fmspc=${fmspc}${channel('&')}`), http), chainHeaders.tcb),
    qeIdentity: async (tee) =>
      answer(await getCollateral(at(tee, `qe/identity${channel('?')}`), http), chainHeaders.qe),
    pckRevocationList: async (authority) => {
      const url = at('sgx', `pckcrl?ca=${authority}&encoding=der`);
      return list(answer(await getCollateral(url, http), chainHeaders.list));
    },
    rootRevocationList: async () => {
      const url = kind === 'pcs' ? rootListUrl : at('sgx', 'rootcacrl');
      return list(answer(await getCollateral(url, http), []));
    },
    ...(kind === 'pcs'
      ? {}
      : {
          pckChain: async ({ encryptedPlatformId, cpuSvn, pceSvn, pceId, qeId }) => {
            const svn = Buffer.alloc(2);
            svn.writeUInt16LE(pceSvn);
            const query = {
              encrypted_ppid: encryptedPlatformId,
              cpusvn: cpuSvn,
              pcesvn: svn,
              pceid: pceId,
              qeid: qeId,
            };
            const parameters = Object.entries(query).map(
              ([name, value]) => `${name}=${value.toString('hex').toUpperCase()}`,
            );
            const found = answer(
              await getCollateral(at('sgx', `pckcert?${parameters.join('&')}`), http),
              chainHeaders.pck,
            );
            return found && Buffer.concat([found.document, Buffer.from(`\n${found.issuerChain ?? ''}`)]);
          },
        }),
  };
}

function answer(answered: CollateralAnswer | undefined, headers: readonly string[]): IntelAnswer | undefined {
  if (answered === undefined) return undefined;
  const [chain] = headers.flatMap((name) => answered.headers.get(name) ?? []);
  return { document: answered.body, ...(chain === undefined ? {} : { issuerChain: decodeChain(chain) }) };
}

function decodeChain(header: string): string {
  try {
    return decodeURIComponent(header);
  } catch {
    return '';
  }
}

function list(answered: IntelAnswer | undefined): IntelAnswer | undefined {
  return answered && { ...answered, document: revocationListBytes(answered.document) };
}
