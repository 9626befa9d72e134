import { describe, expect, it } from 'vitest';
import { findAccelerator } from './acceleration.ts';
import { type MachineOptions, machineArguments } from './machine.ts';

const options: MachineOptions = {
  name: 'podvm-a@/run/peerpod/pods/a/vm/',
  shape: { memoryMiB: 512, vcpus: 2 },
  accelerator: 'tcg',
  firmware: '/usr/share/ovmf/OVMF.fd',
  consoleFile: 'console.log',
  tpmSocket: 'tpm.sock',
  sockets: { agent: 'agent.sock', qmp: 'qmp.sock' },
  network: { tap: 'tap0', macAddress: '02:00:00:00:00:01' },
};

describe('machineArguments', () => {
  it('opens disks read-only and gives only the root disk a boot index', () => {
    const args = machineArguments(options);
    const disks = args.filter((argument) => argument.startsWith('driver='));
    expect(disks).toHaveLength(4);
    for (const disk of disks) expect(disk).toContain('read-only=on');
    expect(args.filter((argument) => argument.includes('bootindex'))).toEqual([
      'virtio-blk-pci,drive=root,addr=0x1,bootindex=0',
    ]);
  });

  it('differs between pods in name, tap and hardware address alone', () => {
    const first = machineArguments(options);
    const second = machineArguments({
      ...options,
      name: 'podvm-b@/x/',
      network: { tap: 'tap1', macAddress: '02:00:00:00:00:02' },
    });
    const differing = first.filter((argument, index) => argument !== second[index]);
    expect(differing).toHaveLength(3);
    expect(first.filter((argument) => argument.startsWith('virtio-net-pci'))[0]).toContain('romfile=');
  });

  it('has the same cards where nothing is connected', () => {
    const { network: _, ...unconnected } = options;
    const cards = (args: string[]): string[] =>
      args.filter((argument) => argument.includes('-pci')).map((argument) => argument.replace(/,mac=.*/, ''));
    expect(cards(machineArguments(unconnected))).toEqual(cards(machineArguments(options)));
  });

  it('a clone has the devices of its template, and waits instead of booting', () => {
    const { network: _, ...template } = options;
    const devices = (args: string[]): string[] =>
      args
        .filter((_argument, index) => args[index - 1] === '-device')
        .map((argument) => argument.replace(/,mac=.*/, ''));
    const clone = machineArguments({ ...options, incoming: true });
    expect(devices(clone)).toEqual(devices(machineArguments(template)));
    expect(clone.slice(-2)).toEqual(['-incoming', 'defer']);
    expect(machineArguments(options)).not.toContain('-incoming');
  });

  it('is sandboxed and has no monitor, display or default device', () => {
    const args = machineArguments(options);
    expect(args).toContain('-nodefaults');
    expect(args[args.indexOf('-sandbox') + 1]).toBe(
      'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny',
    );
    expect(args).not.toContain('-monitor');
  });
});

describe('findAccelerator', () => {
  it('takes KVM only with device and vendor module', async () => {
    await expect(findAccelerator('/dev/null', ['/proc/self'])).resolves.toBe('kvm');
    await expect(findAccelerator('/dev/null', ['/nonexistent'])).resolves.toBe('tcg');
    await expect(findAccelerator('/nonexistent', ['/proc/self'])).resolves.toBe('tcg');
  });
});
