import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';

/** A cluster that somebody else made, with the runtime installed, and what its pods and this machine both reach. */
export interface GivenCluster {
  readonly kubeconfig: string;
  /** `host:port` of a registry: written to from here, read by node and guests. */
  readonly registry: string;
  /** Whether that registry speaks plain HTTP. */
  readonly plainHttp: boolean;
  readonly kbsUrl: string;
  readonly kbsCertificateFile: string;
  /** Private key of an owner at that key broker. */
  readonly ownerKeyFile: string;
}

const names = {
  kubeconfig: 'SEALPOD_TEST_KUBECONFIG',
  registry: 'SEALPOD_TEST_REGISTRY',
  kbsUrl: 'SEALPOD_TEST_KBS_URL',
  kbsCertificateFile: 'SEALPOD_TEST_KBS_CERTIFICATE',
  ownerKeyFile: 'SEALPOD_TEST_OWNER_KEY',
} as const;

const variable = (name: string): string => process.env[name] ?? '';

/** The cluster that the environment names, or undefined where the tests make one of their own. @throws Error where half of it is named */
export function givenCluster(): GivenCluster | undefined {
  if (variable(names.kubeconfig) === '') return undefined;
  const missing = Object.values(names).filter((name) => variable(name) === '');
  if (missing.length > 0) throw new Error(`${names.kubeconfig} is set; set ${missing.join(', ')} too`);
  return {
    kubeconfig: variable(names.kubeconfig),
    registry: variable(names.registry),
    plainHttp: variable('SEALPOD_TEST_REGISTRY_TLS') !== '1',
    kbsUrl: variable(names.kbsUrl),
    kbsCertificateFile: variable(names.kbsCertificateFile),
    ownerKeyFile: variable(names.ownerKeyFile),
  };
}

/**
 * Folder of an environment whose cluster runs already and is left running: for work on the tests, where each run would
 * otherwise build an environment and a cluster first.
 */
export function sharedHome(): string | undefined {
  const home = variable('SEALPOD_TEST_HOME');
  return home === '' ? undefined : home;
}

/** Options of `sealpod cluster up` for the release that the environment names: the long run is made for each. */
export function releaseOption(): readonly string[] {
  const release = variable('SEALPOD_TEST_KUBERNETES');
  return release === '' ? [] : ['--kubernetes', release];
}

/** Why a plain pod does not find the layers of an image that a sealed pod pulled, or undefined where it does. */
export function layersObstacle(): string | undefined {
  return variable('SEALPOD_TEST_KUBERNETES') === '1.36' ? 'containerd 1.7 does not fetch them' : undefined;
}

/** Why no cluster can be had here, or undefined where one can. */
export function clusterObstacle(): string | undefined {
  if (variable('SEALPOD_LONG_TESTS') !== '1')
    return 'builds a cluster and boots many machines: set SEALPOD_LONG_TESTS=1';
  if (variable(names.kubeconfig) !== '') {
    if (!existsSync(variable(names.kubeconfig))) return `${names.kubeconfig} names no file`;
    return works('kubectl', 'version', '--client') ? undefined : 'needs kubectl in PATH';
  }
  if (process.getuid?.() !== 0) return 'needs root';
  if (!works('nft', '--version')) return 'needs nft (nftables)';
  return works('go', 'env', 'GOVERSION') ? undefined : 'needs Go 1.26 or newer to build Kubernetes';
}

/** Why the node's own programs and files cannot be reached by a test, or undefined where they can. */
export function nodeObstacle(): string | undefined {
  return givenCluster() === undefined ? undefined : 'needs the node, and the cluster is a given one';
}

/** Why a test cannot choose the options of its cluster, or undefined where it can: the cluster is its own. */
export function ownClusterObstacle(): string | undefined {
  return nodeObstacle() ?? (sharedHome() === undefined ? undefined : 'needs a cluster of its own options');
}

/** Words for the name of a test that is skipped. */
export function skipped(obstacle: string | undefined): string {
  return obstacle === undefined ? '' : ` (skipped: ${obstacle})`;
}

function works(command: string, ...args: readonly string[]): boolean {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0;
}
