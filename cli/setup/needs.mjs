// What a machine must have, beyond npm packages. No dependency and no TypeScript: this runs before anything is
// installed, on whatever Node the machine has (18 or newer). `sealpod doctor` prints the same list.
import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * @typedef {object} Need
 * @property {string} name what is looked for
 * @property {string} why what it is for
 * @property {string} debianPackage the Debian package that brings it
 * @property {() => boolean} found
 */

const programFolders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin', '/usr/bin', '/bin'];

/** @param {string} name */
function program(name) {
  return programFolders.some((folder) => {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return folder !== '';
    } catch {
      return false;
    }
  });
}

/** @param {string} name @param {string} debianPackage @param {string} why @returns {Need} */
const programNeed = (name, debianPackage, why) => ({ name, debianPackage, why, found: () => program(name) });

/** @param {string} name @param {string[]} paths @param {string} debianPackage @param {string} why @returns {Need} */
const fileNeed = (name, paths, debianPackage, why) => ({
  name,
  debianPackage,
  why,
  found: () => paths.some((path) => existsSync(path)),
});

/** What running a pod needs. */
export const runNeeds = [
  programNeed('qemu-system-x86_64', 'qemu-system-x86', 'runs the pod VM'),
  fileNeed(
    'OVMF firmware',
    ['/usr/share/ovmf/OVMF.fd', '/usr/share/OVMF/OVMF.fd', '/usr/share/qemu/OVMF.fd'],
    'ovmf',
    'measures what the pod VM boots',
  ),
  programNeed('swtpm', 'swtpm', 'the software TPM of a simulated machine'),
  programNeed('swtpm_setup', 'swtpm-tools', 'gives each software TPM its endorsement key and certificate'),
  programNeed('mkfs.erofs', 'erofs-utils', 'builds the root file system of the pod VM'),
  programNeed('veritysetup', 'cryptsetup-bin', 'computes the dm-verity tree of the root file system'),
  programNeed('mkfs.vfat', 'dosfstools', 'builds the EFI partition'),
  programNeed('mcopy', 'mtools', 'fills the EFI partition'),
  programNeed('xz', 'xz-utils', 'unpacks modules of the kernel and sections of the firmware'),
  programNeed('busybox', 'busybox-static', 'content of the example image'),
  programNeed('containerd', 'containerd', 'pulls images and drives the runtime'),
  programNeed('runc', 'runc', 'plain containers beside the confidential ones'),
  programNeed('docker-registry', 'docker-registry', 'the registry of the development environment'),
  fileNeed(
    'CNI plugins',
    ['/usr/lib/cni/bridge', '/opt/cni/bin/bridge'],
    'containernetworking-plugins',
    'connects pods',
  ),
  programNeed('ip', 'iproute2', 'network namespaces and taps'),
  programNeed('iptables', 'iptables', "used by the CNI plugins, and for connections to a pod's localhost"),
  programNeed('sysctl', 'procps', "settings of a pod's network"),
];

/** What the tests need besides: independent programs to compare with. */
export const testNeeds = [
  programNeed('crun', 'crun', 'runs containers as the guest does'),
  programNeed('skopeo', 'skopeo', 'a second opinion on images'),
  programNeed('umoci', 'umoci', 'a second opinion on unpacked images'),
];

/** What `sealpod cluster up` needs besides Go. */
export const clusterNeeds = [
  programNeed('go', 'golang-go', 'builds Kubernetes from its modules; 1.26 or newer, which Debian may not have yet'),
  programNeed('nft', 'nftables', 'the rules of Services and host ports'),
  programNeed('ip', 'iproute2', 'the bridge of the pods'),
  programNeed('iptables', 'iptables', 'the rules of network policies'),
  programNeed('ipset', 'ipset', 'the addresses that network policies name'),
  programNeed('mount', 'mount', 'volumes of pods'),
  programNeed('losetup', 'mount', 'persistent volumes: files as block devices'),
  programNeed('mkfs.ext4', 'e2fsprogs', 'persistent volumes of plain pods'),
  programNeed('runc', 'runc', 'plain pods'),
  programNeed('docker-registry', 'docker-registry', 'the registry of the cluster'),
];

/** The Debian release of this machine, e.g. `12`, or undefined where it is no Debian. */
export function debianRelease() {
  if (!existsSync('/etc/os-release')) return undefined;
  const text = readFileSync('/etc/os-release', 'utf8');
  return /^ID=debian$/m.test(text) ? /^VERSION_ID="?(\d+)/m.exec(text)?.[1] : undefined;
}

/** @param {Need[]} needs @returns {Need[]} */
export const missing = (needs) => needs.filter((need) => !need.found());

/** @param {Need[]} needs @returns {string} */
export const installCommand = (needs) =>
  `apt-get update && apt-get install -y --no-install-recommends ${[...new Set(needs.map((need) => need.debianPackage))].join(' ')}`;
