import type {
  EnclaveIdentity,
  IsvLevel,
  Level,
  LevelStatus,
  TcbInfo,
  TdxModule,
} from '../../endorsements/intel/tcb-info.ts';
import type { PckCertificate } from './pck-certificate.ts';

/** What Intel's library says of a quote as a whole: the statuses of levels, and those of a TD that should start again. */
export type TcbStatus = LevelStatus | 'TDRelaunchAdvised' | 'TDRelaunchAdvisedConfigurationNeeded';

/** The status of a platform with everything that was measured against collateral. */
export interface TcbResult {
  readonly status: TcbStatus;
  readonly advisories: readonly string[];
  readonly date: Date;
}

/** One evaluation: of the platform's own level with those of quoting enclave and module. Undefined where no level is reached. */
export function convergedStatus(platform: Level, ...others: readonly Level[]): TcbResult {
  const all = [platform, ...others];
  return {
    status: others.reduce<LevelStatus>((status, other) => converge(status, other.status), platform.status),
    advisories: [...new Set(all.flatMap(({ advisories }) => advisories))].sort(),
    date: new Date(Math.min(...all.map(({ date }) => date.getTime()))),
  };
}

function converge(platform: LevelStatus, other: LevelStatus): LevelStatus {
  if (platform === 'Revoked' || other === 'Revoked') return 'Revoked';
  if (other !== 'OutOfDate' && other !== 'OutOfDateConfigurationNeeded') return platform;
  switch (platform) {
    case 'UpToDate':
    case 'SWHardeningNeeded':
    case 'OutOfDate':
      return 'OutOfDate';
    default:
      return 'OutOfDateConfigurationNeeded';
  }
}

/**
 * The first level that a platform reaches: all components of SGX, the version of the PCE, and for TDX all components of
 * `svn`. Where the module has a version of its own (byte 1), its first two bytes are the module identity's to judge.
 */
export function platformLevel(
  { levels }: TcbInfo,
  { components, pceSvn }: PckCertificate,
  svn?: Buffer,
): Level | undefined {
  return levels.find((level) => {
    const sgx = level.sgx.every((least, index) => (components[index] ?? 0) >= least);
    if (!sgx || pceSvn < level.pceSvn) return false;
    if (svn === undefined) return true;
    const from = (svn[1] ?? 0) > 0 ? 2 : 0;
    return level.tdx?.every((least, index) => index < from || (svn[index] ?? 0) >= least) ?? false;
  });
}

/** The module that a version names, and its level; the level is undefined where the module has none of its own. */
export interface ModuleIdentity {
  readonly name: string;
  readonly module: TdxModule | undefined;
  /** Where the module has levels of its own. */
  readonly levels?: readonly IsvLevel[];
}

/** @param svn TEE_TCB_SVN, whose byte 1 is the module's major version */
export function moduleIdentityOf(info: TcbInfo, svn: Buffer): ModuleIdentity {
  const version = svn[1] ?? 0;
  if (version === 0) return { name: 'tdxModule', module: info.tdxModule };
  const name = `TDX_${version.toString(16).toUpperCase().padStart(2, '0')}`;
  const found = info.tdxModules.get(name);
  return { name, module: found, levels: found?.levels ?? [] };
}

/** The first level whose version is reached. */
export function isvLevel(levels: readonly IsvLevel[], isvSvn: number): IsvLevel | undefined {
  return levels.find((level) => isvSvn >= level.isvSvn);
}

/** The level of a quoting enclave. */
export function enclaveLevel({ levels }: EnclaveIdentity, isvSvn: number): IsvLevel | undefined {
  return isvLevel(levels, isvSvn);
}

/** All that judges one set of versions of a TD: undefined where one of them reaches no level. */
export function tdStatus(
  info: TcbInfo,
  pck: PckCertificate,
  quotingEnclave: Level,
  svn: Buffer,
): TcbResult | undefined {
  const platform = platformLevel(info, pck, svn);
  const { levels } = moduleIdentityOf(info, svn);
  const module = levels === undefined ? undefined : isvLevel(levels, svn[0] ?? 0);
  if (platform === undefined || (levels !== undefined && module === undefined)) return undefined;
  return convergedStatus(platform, quotingEnclave, ...(module === undefined ? [] : [module]));
}

const outdated: readonly TcbStatus[] = ['OutOfDate', 'OutOfDateConfigurationNeeded'];
const good: readonly TcbStatus[] = [
  'UpToDate',
  'SWHardeningNeeded',
  'ConfigurationNeeded',
  'ConfigurationAndSWHardeningNeeded',
];

/**
 * From TDX 1.5 on the module may have been updated since the TD was launched: a TD of an old launch on a current module is
 * advised to start again (Intel's DCAP library 1.27, relaunch check). Advisories stay those of the launch.
 */
export function relaunchStatus(launch: TcbResult, current: TcbResult | undefined): TcbStatus {
  if (current === undefined || !outdated.includes(launch.status) || !good.includes(current.status))
    return launch.status;
  const needsConfiguration = [launch.status, current.status].some((status) => /Configuration/.test(status));
  return needsConfiguration ? 'TDRelaunchAdvisedConfigurationNeeded' : 'TDRelaunchAdvised';
}
