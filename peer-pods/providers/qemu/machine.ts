/** What a machine is given. The firmware measures itself differently for each, so each has its own reference values. */
export interface MachineShape {
  readonly memoryMiB: number;
  readonly vcpus: number;
}

/** Enough for the agent, crun and a small workload; the agent's own file system cache needs the rest. */
export const defaultShape: MachineShape = { memoryMiB: 512, vcpus: 1 };

export type Accelerator = 'kvm' | 'tcg';

/** Name of the agent channel's virtio-serial port. */
export const agentPortName = 'sealpod.agent.0';

/** Name of the adapter at which volumes are plugged into a running machine. */
export const volumeBus = 'volumes';

/** Numbers of the inherited file descriptors through which QEMU gets disks it may not open itself. */
export const diskDescriptor = 3;
export const initdataDescriptor = 4;

export interface MachineOptions {
  /** Free text, visible in the process list: carries the marker by which the process is found again. */
  readonly name: string;
  readonly shape: MachineShape;
  readonly accelerator: Accelerator;
  /** Path of the firmware, both code and variables in one file; it is read-only. */
  readonly firmware: string;
  /** Paths relative to QEMU's working directory (socket paths are limited to 107 bytes). */
  readonly consoleFile: string;
  readonly tpmSocket: string;
  /** Absent where nobody talks to the machine (calibration). */
  readonly sockets?: { readonly agent: string; readonly qmp: string };
  /** Absent: a network card that is connected to nothing. */
  readonly network?: { readonly tap: string; readonly macAddress: string };
  /** The machine does not boot: it waits for the state of another, which its control socket is told. */
  readonly incoming?: boolean;
}

/**
 * Command line of QEMU for a pod VM: q35, firmware, TPM, two read-only disks, agent channel, one network card, and an
 * adapter for volumes. The adapter is there with and without volumes, and empty until the guest runs: no measurement
 * depends on what a pod keeps.
 *
 * Every measured property is fixed here. Cards have fixed places, since the firmware numbers its boot options by them;
 * only the disk has a boot index, and the network card no option ROM, so no boot option holds a hardware address.
 * No secret stands in it: all users of the host can read it.
 */
export function machineArguments(options: MachineOptions): string[] {
  const { shape, accelerator } = options;
  const processor = accelerator === 'kvm' ? 'host' : 'max';
  const engine = accelerator === 'kvm' ? 'kvm' : 'tcg,thread=multi';
  return [
    ...['-name', options.name, '-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
    ...[
      '-machine',
      'q35,smm=off,sata=off,smbus=off,usb=off,vmport=off,graphics=off',
      '-accel',
      engine,
      '-cpu',
      processor,
    ],
    ...['-smp', String(shape.vcpus), '-m', `${shape.memoryMiB}M`, '-bios', options.firmware],
    ...['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
    ...['-chardev', `file,id=console,path=${options.consoleFile},append=on`, '-serial', 'chardev:console'],
    ...disk('root', diskDescriptor, 'addr=0x1,bootindex=0'),
    ...['-device', 'virtio-serial-pci,id=serial,addr=0x2', ...sockets(options.sockets)],
    ...disk('initdata', initdataDescriptor, 'addr=0x3,serial=initdata'),
    ...network(options.network),
    ...['-device', `virtio-scsi-pci,id=${volumeBus},addr=0x5`],
    ...['-chardev', `socket,id=tpm,path=${options.tpmSocket}`, '-tpmdev', 'emulator,id=tpm0,chardev=tpm'],
    ...['-device', 'tpm-crb,tpmdev=tpm0'],
    ...(options.incoming === true ? ['-incoming', 'defer'] : []),
  ];
}

function disk(id: string, descriptor: number, device: string): string[] {
  const file = `driver=file,node-name=${id}-file,filename=/dev/fdset/${descriptor},read-only=on,cache.no-flush=on`;
  return [
    ...['-add-fd', `fd=${descriptor},set=${descriptor}`, '-blockdev', file],
    ...['-blockdev', `driver=raw,node-name=${id},file=${id}-file,read-only=on`],
    ...['-device', `virtio-blk-pci,drive=${id},${device}`],
  ];
}

function sockets(paths: MachineOptions['sockets']): string[] {
  if (paths === undefined) return [];
  return [
    ...['-chardev', `socket,id=agent,path=${paths.agent},server=on,wait=off`],
    ...['-device', `virtserialport,bus=serial.0,chardev=agent,name=${agentPortName}`],
    ...['-qmp', `unix:${paths.qmp},server=on,wait=off`],
  ];
}

function network(card: MachineOptions['network']): string[] {
  const device = 'virtio-net-pci,netdev=net0,addr=0x4,romfile=';
  if (card === undefined) return ['-netdev', 'hubport,id=net0,hubid=0', '-device', device];
  const tap = `tap,id=net0,ifname=${card.tap},script=no,downscript=no,vhost=off`;
  return ['-netdev', tap, '-device', `${device},mac=${card.macAddress}`];
}
