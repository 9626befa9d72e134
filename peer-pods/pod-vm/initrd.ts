import { readFile } from 'node:fs/promises';
import { relative } from 'node:path';
import { constants, zstdCompressSync } from 'node:zlib';
import { agentPortName } from '../providers/qemu/machine.ts';
import { type CpioEntry, writeCpio } from './cpio.ts';
import type { Kernel } from './kernel.ts';
import { findProgram, libraryClosure } from './libraries.ts';
import { reseedProgram } from './reseed-program.ts';
import { templateReady, templateSwitch, templateWoken, wakeWord } from './template-words.ts';

/** Names of the partitions, by which the initrd finds them in sysfs. */
export const rootPartitionName = 'sealpod-root';
export const verityPartitionName = 'sealpod-verity';

/** Salt of the hash tree: fixed, so that a build gives the same bytes again. */
export const veritySalt = '7365616c706f642d726f6f742d66696c652d73797374656d2d73616c742d7631';

/**
 * The part of init of a machine from which others are cloned (`sealpod.template=1`, see `templateSwitch`), run where all
 * that does not depend on a pod is done. It lets go of the pod's devices (the initdata disk and the network card, by their
 * fixed places, see `machineArguments`), reads the agent into the page cache, and waits for a line on the agent's port. Up to there nothing
 * of a pod is known, and no program that keeps random numbers or keys has begun. The line comes to each clone from its own
 * host: clock, hardware address, bytes for the kernel's random numbers.
 */
const holdScript = `
  pci=/root/sys/bus/pci/drivers/virtio-pci
  echo 0000:00:03.0 >$pci/unbind
  echo 0000:00:04.0 >$pci/unbind
  $busybox chroot /root /usr/bin/node /sealpod/guest-agent.mjs --version >/root/dev/null
  agent=
  for port in /root/sys/class/virtio-ports/*; do
    read -r name <$port/name || continue
    if [ "$name" = ${agentPortName} ]; then agent=/root/dev/\${port##*/}; fi
  done
  echo "${templateReady}"
  word=
  until read -r word seconds address seed <$agent && [ "$word" = ${wakeWord} ]; do $busybox usleep 20000; done
  echo "${templateWoken}"
  $busybox date -u -s "@$seconds" >/root/dev/null
  echo "$seed" >/root/dev/urandom
  /reseed </root/dev/urandom
  echo 0000:00:03.0 >$pci/bind
  echo 0000:00:04.0 >$pci/bind
  [ "$address" = none ] || $busybox ip link set eth0 address "$address"
  read -r SEALPOD_WOKEN idle </root/proc/uptime
  export SEALPOD_WOKEN
`.trim();

/**
 * PID 1 until the root file system is there. A failed step ends the script, PID 1's end panics the kernel, and
 * `panic=-1` resets the machine, which QEMU turns into its end: nothing runs on a root that does not verify.
 * A block that fails verification later panics the kernel, too.
 *
 * The mounts that the guest agent needs are made here, where a program starts in a tenth of the time: the agent would
 * make the same ones (see its `prepareSystem`).
 */
const initScript = `#!/bin/busybox sh
set -e
busybox=/bin/busybox
$busybox mount -t proc -o nosuid,nodev,noexec proc /proc
$busybox mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
$busybox mount -t devtmpfs -o nosuid devtmpfs /dev
read -r seconds idle </proc/uptime
echo "sealpod: init after $seconds s of the kernel"
while read -r module; do
  case "$module" in
    # A processor without these instructions refuses it; the kernel has the cipher without them, too.
    aesni_intel.ko) $busybox insmod "/modules/$module" || echo "sealpod: without $module" ;;
    *) $busybox insmod "/modules/$module" ;;
  esac
done </modules/order
roothash= rootblocks= template=
for word in $($busybox cat /proc/cmdline); do
  case "$word" in
    roothash=*) roothash=\${word#*=} ;;
    rootblocks=*) rootblocks=\${word#*=} ;;
    ${templateSwitch}) template=1 ;;
  esac
done
root= verity=
for entry in /sys/class/block/*/uevent; do
  name=\${entry%/uevent}
  name=\${name##*/}
  while read -r line; do
    case "$line" in
      PARTNAME=${rootPartitionName}) root=/dev/$name ;;
      PARTNAME=${verityPartitionName}) verity=/dev/$name ;;
    esac
  done <"$entry"
done
if [ -z "$root" ] || [ -z "$verity" ] || [ -z "$roothash" ] || [ -z "$rootblocks" ]; then
  echo "sealpod: no root partition or no roothash= on the command line"
  exit 1
fi
/sbin/dmsetup create --noudevsync --readonly sealpod-root --table "0 $((rootblocks * 8)) verity 1 $root $verity 4096 4096 $rootblocks 1 sha256 $roothash ${veritySalt} 1 panic_on_corruption"
/sbin/dmsetup mknodes
$busybox mount -t erofs -o ro,nodev /dev/mapper/sealpod-root /root
$busybox mount -t tmpfs -o nosuid,nodev,mode=0755 tmpfs /root/run
$busybox mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /root/tmp
$busybox mkdir /dev/pts /dev/shm /dev/mqueue
$busybox mount -t devpts -o nosuid,noexec,mode=0620,ptmxmode=0666 devpts /dev/pts
$busybox mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /dev/shm
$busybox mount -t mqueue -o nosuid,nodev,noexec mqueue /dev/mqueue
$busybox mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate cgroup2 /sys/fs/cgroup
$busybox mount -t securityfs -o nosuid,nodev,noexec securityfs /sys/kernel/security
$busybox ip link set lo up
for directory in proc sys dev; do $busybox mount --move /$directory /root/$directory; done
if [ -n "$template" ]; then
  ${holdScript}
fi
exec $busybox switch_root /root /usr/bin/tini -- /usr/bin/node /sealpod/guest-agent.mjs
`;

/**
 * PID 1 of the calibration machine (see `calibrate.ts`): prints the firmware's event log, nothing else. It is never
 * part of a pod VM image.
 */
const calibrationScript = `#!/bin/busybox sh
busybox=/bin/busybox
$busybox mount -t sysfs sysfs /sys
$busybox mount -t securityfs securityfs /sys/kernel/security
echo SEALPOD-EVENT-LOG-BEGIN
$busybox base64 /sys/kernel/security/tpm0/binary_bios_measurements
echo SEALPOD-EVENT-LOG-END
$busybox poweroff -f
`;

export interface Initrd {
  /** The compressed archive. */
  readonly archive: Buffer;
  /** Files of the packages that are in it, as paths in the unpacked packages. */
  readonly taken: readonly string[];
}

/** The initrd of the pod VM image: busybox, dmsetup with its libraries, kernel modules and a few lines of init. */
export async function writeInitrd(packagesRoot: string, kernel: Kernel): Promise<Initrd> {
  const entries: CpioEntry[] = [...(await base(packagesRoot, initScript))];
  entries.push({ path: 'root', kind: 'directory' });
  const programs = await libraryClosure(packagesRoot, ['sbin/dmsetup']);
  for (const file of programs) {
    entries.push({ path: file.path, kind: 'file', content: file.content, mode: 0o755 });
  }
  for (const module of kernel.modules) {
    entries.push({ path: `modules/${module.name}`, kind: 'file', content: module.content, mode: 0o644 });
  }
  const order = kernel.modules.map((module) => `${module.name}\n`).join('');
  entries.push({ path: 'reseed', kind: 'file', content: reseedProgram(), mode: 0o755 });
  entries.push({ path: 'modules/order', kind: 'file', content: Buffer.from(order), mode: 0o644 });
  const busybox = relative(packagesRoot, await findProgram(packagesRoot, 'bin/busybox'));
  return { archive: compress(writeCpio(entries)), taken: [busybox, ...programs.map((file) => file.source)] };
}

/** The initrd of the calibration machine. */
export async function writeCalibrationInitrd(packagesRoot: string): Promise<Buffer> {
  return compress(writeCpio(await base(packagesRoot, calibrationScript)));
}

async function base(packagesRoot: string, script: string): Promise<CpioEntry[]> {
  const busybox = await readFile(await findProgram(packagesRoot, 'bin/busybox'));
  return [
    ...['proc', 'sys', 'dev'].map((path): CpioEntry => ({ path, kind: 'directory' })),
    // The kernel opens it for PID 1 before anything is mounted.
    { path: 'dev/console', kind: 'character device', major: 5, minor: 1 },
    { path: 'bin/busybox', kind: 'file', content: busybox, mode: 0o755 },
    { path: 'init', kind: 'file', content: Buffer.from(script), mode: 0o755 },
  ];
}

/** Firmware and boot stub copy and hash every byte several times, so a smaller initrd starts sooner. */
function compress(archive: Buffer): Buffer {
  return zstdCompressSync(archive, {
    params: { [constants.ZSTD_c_compressionLevel]: 19, [constants.ZSTD_c_checksumFlag]: 0 },
  });
}
