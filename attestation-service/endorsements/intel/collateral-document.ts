import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonObject, type JsonValue, optionalMember, parseJson } from '@sealpod/protocol/json';
import { revocationListBytes } from './revocation-list-bytes.ts';
import type { IntelAnswer, IntelCollateralSource } from './source.ts';

/** Intel's channels: which of two documents counts where a file holds both. */
export type CollateralUpdate = 'early' | 'standard';

/** What documents hold, by the names under which it is asked for. */
export type CollateralContents = Map<string, IntelAnswer>;

/** A source of what was collected; `contents` is called for each question. */
export function collectedSource(
  name: string,
  contents: () => CollateralContents | Promise<CollateralContents>,
): IntelCollateralSource {
  const find = async (key: string): Promise<IntelAnswer | undefined> => (await contents()).get(key);
  return {
    name,
    tcbInfo: (tee, fmspc) => find(`tcb/${tee}/${fmspc}`),
    qeIdentity: (tee) => find(`qe/${tee}`),
    pckRevocationList: (authority) => find(`crl/${authority}`),
    rootRevocationList: () => find('crl/root'),
  };
}

/**
 * A source of one document that somebody hands in. Member `pck_certificate_chain` (PEM) serves a quote that does not bring
 * the certificate of its platform. A document that cannot be read is EV_COLLATERAL_UNAVAILABLE when it is asked.
 */
export function collateralDocument(document: JsonObject, update: CollateralUpdate = 'early'): IntelCollateralSource {
  const name = 'the caller’s collateral';
  let read: CollateralContents | undefined;
  const contents = (): CollateralContents => {
    if (read !== undefined) return read;
    const found: CollateralContents = new Map();
    try {
      collect(asJsonObject(document, name), update, found);
    } catch (cause) {
      throw new SealpodError('EV_COLLATERAL_UNAVAILABLE', `${name} is none`, { cause });
    }
    read = found;
    return found;
  };
  return {
    ...collectedSource(name, contents),
    pckChain: async () => {
      const chain = text(document, 'pck_certificate_chain');
      return chain === '' ? undefined : Buffer.from(chain);
    },
  };
}

/**
 * Adds what a document holds to `found`. It is either what Intel's PCS Client Tool writes for platforms without network
 * (`{"collaterals": {…}}`), or the collateral of one quote with the members of Intel's `sgx_ql_qve_collateral_t`
 * (`tcb_info`, `qe_identity`, `pck_crl`, `root_ca_crl`, …).
 *
 * @throws SealpodError where it holds something else; URIError for a chain that is encoded wrongly
 */
export function collect(document: JsonObject, update: CollateralUpdate, found: CollateralContents): void {
  const collaterals = optionalMember(document, 'collaterals');
  if (collaterals === undefined) collectQuoteCollateral(document, found);
  else collectClientTool(asJsonObject(collaterals, 'collaterals'), update, found);
}

/** The file of the PCS Client Tool: `_early` members hold the other channel. */
function collectClientTool(collaterals: JsonObject, update: CollateralUpdate, found: CollateralContents): void {
  const chains = member(collaterals, 'certificates');
  const listChains = member(chains, 'SGX-PCK-Certificate-Issuer-Chain');
  const channel = (object: JsonObject, name: string): JsonValue | undefined =>
    (update === 'early' ? optionalMember(object, `${name}_early`) : undefined) ?? optionalMember(object, name);
  const infos = optionalMember(collaterals, 'tcbinfos');
  for (const info of Array.isArray(infos) ? infos : []) {
    const object = asJsonObject(info as JsonValue, 'tcbinfos[]');
    for (const tee of ['sgx', 'tdx'] as const)
      addSigned(
        found,
        `tcb/${tee}/${text(object, 'fmspc').toUpperCase()}`,
        channel(object, `${tee}_tcbinfo`),
        text(chains, 'TCB-Info-Issuer-Chain'),
      );
  }
  const identityChain = text(chains, 'SGX-Enclave-Identity-Issuer-Chain');
  addSigned(found, 'qe/sgx', channel(collaterals, 'qeidentity'), identityChain);
  addSigned(found, 'qe/tdx', channel(collaterals, 'tdqeidentity'), identityChain);
  const lists = member(collaterals, 'pckcacrl');
  addList(found, 'crl/processor', text(lists, 'processorCrl'), text(listChains, 'PROCESSOR'));
  addList(found, 'crl/platform', text(lists, 'platformCrl'), text(listChains, 'PLATFORM'));
  addList(found, 'crl/root', text(collaterals, 'rootcacrl') || text(collaterals, 'rootcacrl_cdp'));
}

function collectQuoteCollateral(document: JsonObject, found: CollateralContents): void {
  const signed = (name: string, inner: string): JsonObject | undefined => {
    const content = text(document, name);
    if (content === '') return undefined;
    const object = asJsonObject(parseJson(content, { what: name }), name);
    // Some write the whole answer of the service here, some what was signed and the signature beside.
    return optionalMember(object, inner) === undefined
      ? { [inner]: object, signature: text(document, `${name}_signature`) }
      : object;
  };
  const info = signed('tcb_info', 'tcbInfo');
  const tee = text(member(info ?? {}, 'tcbInfo'), 'id') === 'TDX' ? 'tdx' : 'sgx';
  const fmspc = text(member(info ?? {}, 'tcbInfo'), 'fmspc').toUpperCase();
  addSigned(found, `tcb/${tee}/${fmspc}`, info, text(document, 'tcb_info_issuer_chain'));
  const identity = signed('qe_identity', 'enclaveIdentity');
  const identityTee = text(member(identity ?? {}, 'enclaveIdentity'), 'id') === 'TD_QE' ? 'tdx' : 'sgx';
  addSigned(found, `qe/${identityTee}`, identity, text(document, 'qe_identity_issuer_chain'));
  const listChain = text(document, 'pck_crl_issuer_chain');
  // The name of the issuer lies in the list as it is; whether it issued the list is for the signature to say.
  const listed = text(document, 'pck_crl');
  const processor = listed !== '' && revocationListBytes(Buffer.from(listed, 'latin1')).includes('PCK Processor CA');
  addList(found, processor ? 'crl/processor' : 'crl/platform', listed, listChain);
  addList(found, 'crl/root', text(document, 'root_ca_crl'));
}

function addSigned(found: CollateralContents, key: string, value: JsonValue | undefined, chain: string): void {
  if (typeof value !== 'object' || value === null) return;
  found.set(key, { document: Buffer.from(JSON.stringify(value)), issuerChain: decodeURIComponent(chain) });
}

function addList(found: CollateralContents, key: string, list: string, chain = ''): void {
  if (list === '') return;
  const document = revocationListBytes(Buffer.from(list, 'latin1'));
  found.set(key, { document, ...(chain === '' ? {} : { issuerChain: decodeURIComponent(chain) }) });
}

function member(object: JsonObject, name: string): JsonObject {
  const value = optionalMember(object, name);
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : {};
}

function text(object: JsonObject, name: string): string {
  const value = optionalMember(object, name);
  return typeof value === 'string' ? value : '';
}
