import { sign } from 'node:crypto';
import type { IntelAnswer, IntelCollateralSource, IntelTee } from '../../../endorsements/intel/source.ts';
import type { LevelStatus } from '../../../endorsements/intel/tcb-info.ts';
import { type Issued, pem } from '../../testing/authority.ts';
import { ends, issued, type ListOptions, platform, type TestIntel } from './authority.ts';

/** A level as Intel writes it. */
export interface LevelDocument {
  readonly tcb: Readonly<Record<string, unknown>>;
  readonly tcbDate: string;
  readonly tcbStatus: string;
  readonly advisoryIDs?: readonly string[];
}

/** TCB info or an enclave's identity as Intel writes it, before it is signed: any member may be made another. */
export type Document = Readonly<Record<string, unknown>>;

/** The inner document as a service answers it: who signed what, and how. */
export interface SigningOptions {
  readonly signer?: Issued;
  /** Certificates that the answer brings; default the signer's and the root's. */
  readonly issuerChain?: string;
  /** What is signed instead of the document. */
  readonly signed?: string;
}

const timeText = (date: Date): string => `${date.toISOString().slice(0, 19)}Z`;
const dates = { issueDate: timeText(issued), nextUpdate: timeText(ends), tcbEvaluationDataNumber: 17 };
const components = (versions: readonly number[]): object[] =>
  Array.from({ length: 16 }, (_, index) => ({ svn: versions[index] ?? 0 }));

/** A level of TCB info of version 3; `tdx` belongs into TCB info of TDX only. */
export function tcbLevel(
  tcbStatus: LevelStatus,
  {
    sgx = platform.tcb,
    pceSvn = platform.pceSvn,
    tdx,
  }: { sgx?: readonly number[]; pceSvn?: number; tdx?: readonly number[] } = {},
  advisoryIDs?: readonly string[],
  tcbDate = '2025-08-13T00:00:00Z',
): LevelDocument {
  const tcb = {
    sgxtcbcomponents: components(sgx),
    pcesvn: pceSvn,
    ...(tdx === undefined ? {} : { tdxtcbcomponents: components(tdx) }),
  };
  return { tcb, tcbDate, tcbStatus, ...(advisoryIDs === undefined ? {} : { advisoryIDs }) };
}

/** A level of an enclave or of a TDX module. */
export function isvLevel(
  tcbStatus: LevelStatus,
  isvsvn: number,
  advisoryIDs?: readonly string[],
  tcbDate = '2025-08-13T00:00:00Z',
): LevelDocument {
  return { tcb: { isvsvn }, tcbDate, tcbStatus, ...(advisoryIDs === undefined ? {} : { advisoryIDs }) };
}

const tdxModule = { mrsigner: '00'.repeat(48), attributes: '00'.repeat(8), attributesMask: 'FF'.repeat(8) };

/** TCB info of version 3 for the test's platform, whose best level is that of a minted quote. */
export function tcbInfo(tee: IntelTee, changes: Document = {}): Document {
  const current = tee === 'tdx' ? { tdx: [3, 0, 5] } : {};
  const old = tee === 'tdx' ? { tdx: [0, 0, 2] } : {};
  const before = platform.tcb.map((svn) => Math.max(svn - 1, 0));
  return {
    id: tee.toUpperCase(),
    version: 3,
    ...dates,
    fmspc: platform.fmspc.toString('hex').toUpperCase(),
    pceId: platform.pceId.toString('hex'),
    tcbType: 0,
    ...(tee === 'tdx' ? { tdxModule, tdxModuleIdentities: [tdxModuleIdentity('TDX_01')] } : {}),
    tcbLevels: [
      tcbLevel('UpToDate', current),
      tcbLevel('OutOfDate', { sgx: before, pceSvn: 11, ...old }, ['INTEL-SA-00837'], '2023-02-15T00:00:00Z'),
      tcbLevel('Revoked', { sgx: [], pceSvn: 0, ...(tee === 'tdx' ? { tdx: [] } : {}) }, ['INTEL-SA-00001']),
    ],
    ...changes,
  };
}

/** Identity of a TDX module of a major version above 0. */
export function tdxModuleIdentity(id: string, changes: Document = {}): Document {
  const tcbLevels = [isvLevel('UpToDate', 4), isvLevel('OutOfDate', 2, ['INTEL-SA-01036'], '2023-08-09T00:00:00Z')];
  return { id, ...tdxModule, tcbLevels, ...changes };
}

/** Who signs Intel's quoting enclaves, SGX's and TDX's. */
export const qeSigners = {
  sgx: '8C4F5775D796503E96137F77C68A829A0056AC8DED70140B081B094490C57BFF',
  tdx: 'DC9E2A7C6F948F17474E34A7FC43ED030F7C1563F1BABDDF6340C82E0E54A8C5',
} as const;

/** Identity of a quoting enclave, version 2. */
export function enclaveIdentity(tee: IntelTee, changes: Document = {}): Document {
  return {
    id: tee === 'tdx' ? 'TD_QE' : 'QE',
    version: 2,
    ...dates,
    miscselect: '00000000',
    miscselectMask: 'FFFFFFFF',
    attributes: '11000000000000000000000000000000',
    attributesMask: 'FBFFFFFFFFFFFFFF0000000000000000',
    mrsigner: qeSigners[tee],
    isvprodid: tee === 'tdx' ? 2 : 1,
    tcbLevels: [isvLevel('UpToDate', 4), isvLevel('OutOfDate', 2, ['INTEL-SA-00615'], '2021-11-10T00:00:00Z')],
    ...changes,
  };
}

/** Signs a document as Intel does: P-256 over the bytes of its compact JSON text, r and s in hexadecimal. */
export function signedAnswer(
  intel: TestIntel,
  member: 'tcbInfo' | 'enclaveIdentity',
  document: Document,
  options: SigningOptions = {},
): IntelAnswer {
  const { signer = intel.tcbSigner, issuerChain = pem([signer, intel.rootAuthority]) } = options;
  const text = JSON.stringify(document);
  const key = { key: signer.key, dsaEncoding: 'ieee-p1363' } as const;
  const signature = sign('sha256', Buffer.from(options.signed ?? text), key).toString('hex');
  return { document: Buffer.from(`{"${member}":${text},"signature":"${signature}"}`), issuerChain };
}

/** What a test makes another about the collateral of its Intel; `null` is collateral that the source does not have. */
export interface CollateralOptions {
  readonly tcbInfo?: Document | null;
  readonly qeIdentity?: Document | null;
  readonly tcbInfoSigning?: SigningOptions;
  readonly qeIdentitySigning?: SigningOptions;
  readonly rootList?: ListOptions | null;
  readonly pckList?: ListOptions | null;
  /** Whole answers, instead of what is minted. */
  readonly answers?: Partial<IntelCollateralSource>;
}

/** A source of the test's collateral, signed and current. Options apply to both TEEs and to both authorities of platforms. */
export function mintSource(intel: TestIntel, options: CollateralOptions = {}): IntelCollateralSource {
  const { rootList, pckList } = options;
  return {
    name: 'test Intel',
    tcbInfo: async (tee, fmspc) => {
      if (options.tcbInfo === null) return undefined;
      const info = tcbInfo(tee, options.tcbInfo);
      return info['fmspc'] === fmspc || options.tcbInfo?.['fmspc'] !== undefined
        ? signedAnswer(intel, 'tcbInfo', info, options.tcbInfoSigning)
        : undefined;
    },
    qeIdentity: async (tee) =>
      options.qeIdentity === null
        ? undefined
        : signedAnswer(intel, 'enclaveIdentity', enclaveIdentity(tee, options.qeIdentity), options.qeIdentitySigning),
    pckRevocationList: async (authority) =>
      pckList === null
        ? undefined
        : {
            document: await intel.revocationList(authority, pckList),
            issuerChain: pem([intel[authority], intel.rootAuthority]),
          },
    rootRevocationList: async () =>
      rootList === null ? undefined : { document: await intel.revocationList('root', rootList) },
    ...options.answers,
  };
}
