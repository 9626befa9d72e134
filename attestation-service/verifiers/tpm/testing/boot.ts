import { createHash } from 'node:crypto';
import { EventType } from '@sealpod/protocol/event-log';
import { Algorithm } from '@sealpod/protocol/tpm';
import type { SoftwareTpm } from '@sealpod/protocol/tpm/testing';
import { imaBootAggregates } from '../boot-aggregate.ts';

/** One event as the firmware or the stub measures it: the digest is over `measured`, or over the data where it is absent. */
export interface BootEvent {
  readonly register: number;
  readonly type: number;
  readonly data: Buffer;
  readonly measured?: Buffer;
}

/** What is booted. */
export interface Machine {
  readonly firmware: string;
  readonly loader: string;
  readonly kernel: string;
  readonly commandLine: string;
  readonly initrd: string;
}

export const machine: Machine = {
  firmware: 'firmware 1',
  loader: 'unified kernel image',
  kernel: 'kernel',
  commandLine: `console=ttyS0 roothash=${'ab'.repeat(32)}`,
  initrd: 'initrd',
};

const ascii = (text: string): Buffer => Buffer.from(text, 'ascii');
const utf16 = (text: string): Buffer => Buffer.from(`${text}\0`, 'utf16le');
export const sha256 = (data: Uint8Array): Buffer => createHash('sha256').update(data).digest();

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function variable(name: string, value: Buffer): Buffer {
  const encoded = Buffer.from(name, 'utf16le');
  return Buffer.concat([
    Buffer.alloc(16, 7),
    uint32(name.length),
    uint32(0),
    uint32(value.length),
    uint32(0),
    encoded,
    value,
  ]);
}

function tagged(description: string): Buffer {
  const text = ascii(`${description}\0`);
  return Buffer.concat([uint32(0x8f3b22ed), uint32(text.length), text]);
}

function section(name: string, content: Buffer): BootEvent[] {
  const common = { register: 11, type: EventType.EV_IPL, data: utf16(name) };
  return [
    { ...common, measured: ascii(`${name}\0`) },
    { ...common, measured: content },
  ];
}

/** The events of a pod VM boot: those of a real one (OVMF, one unified kernel image on a GPT disk), in their order. */
export function bootEvents({ firmware, loader, kernel, commandLine, initrd }: Machine): BootEvent[] {
  const separator = (register: number): BootEvent => ({
    register,
    type: EventType.EV_SEPARATOR,
    data: Buffer.alloc(4),
  });
  return [
    { register: 0, type: EventType.EV_S_CRTM_VERSION, data: Buffer.alloc(2) },
    { register: 0, type: EventType.EV_EFI_PLATFORM_FIRMWARE_BLOB, data: Buffer.alloc(16), measured: ascii(firmware) },
    { register: 7, type: EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, data: variable('SecureBoot', Buffer.from([0])) },
    separator(7),
    {
      register: 1,
      type: EventType.EV_EFI_VARIABLE_BOOT,
      data: variable('BootOrder', Buffer.from([1, 0])),
      measured: Buffer.from([1, 0]),
    },
    { register: 4, type: EventType.EV_EFI_ACTION, data: ascii('Calling EFI Application from Boot Option') },
    ...[0, 1, 2, 3, 4, 5, 6].map(separator),
    { register: 5, type: EventType.EV_EFI_GPT_EVENT, data: ascii('EFI PART') },
    { register: 4, type: EventType.EV_EFI_BOOT_SERVICES_APPLICATION, data: ascii('path'), measured: ascii(loader) },
    ...section('.linux', ascii(kernel)),
    ...section('.osrel', ascii('ID=podvm\n')),
    ...section('.cmdline', ascii(`${commandLine}\0`)),
    ...section('.initrd', ascii(initrd)),
    {
      register: 4,
      type: EventType.EV_EFI_BOOT_SERVICES_APPLICATION,
      data: ascii('path'),
      measured: ascii(`${kernel} image`),
    },
    {
      register: 9,
      type: EventType.EV_EVENT_TAG,
      data: tagged('LOADED_IMAGE::LoadOptions'),
      measured: utf16(commandLine),
    },
    { register: 9, type: EventType.EV_EVENT_TAG, data: tagged('Linux initrd'), measured: ascii(initrd) },
    { register: 5, type: EventType.EV_EFI_ACTION, data: ascii('Exit Boot Services Invocation') },
    { register: 5, type: EventType.EV_EFI_ACTION, data: ascii('Exit Boot Services Returned with Success') },
  ];
}

/** The log of events, crypto-agile with a SHA-256 bank. */
export function encodeLog(events: readonly BootEvent[]): Buffer {
  const specification = Buffer.concat([
    ascii('Spec ID Event03\0'),
    uint32(0),
    Buffer.from([0, 2, 0, 2]),
    uint32(1),
    Buffer.from([0x0b, 0, 32, 0, 0]),
  ]);
  const header = Buffer.concat([
    uint32(0),
    uint32(EventType.EV_NO_ACTION),
    Buffer.alloc(20),
    uint32(specification.length),
    specification,
  ]);
  return Buffer.concat([header, ...events.map(encodeEvent)]);
}

function encodeEvent({ register, type, data, measured }: BootEvent): Buffer {
  const algorithm = Buffer.from([Algorithm.sha256, 0]);
  return Buffer.concat([
    uint32(register),
    uint32(type),
    uint32(1),
    algorithm,
    sha256(measured ?? data),
    uint32(data.length),
    data,
  ]);
}

/** Boots: extends the registers by the events, as firmware, stub, kernel (IMA) and guest agent do. */
export function boot(tpm: SoftwareTpm, events: readonly BootEvent[], initdataDigest: Buffer | undefined): void {
  for (const { register, type, data, measured } of events) {
    if (type !== EventType.EV_NO_ACTION) tpm.extend(register, sha256(measured ?? data));
  }
  const aggregate = imaBootAggregates(tpm.pcrs)[1];
  if (aggregate !== undefined) tpm.pcrs[10] = aggregate;
  if (initdataDigest !== undefined) tpm.extend(8, initdataDigest);
}
