import { createHash } from 'node:crypto';
import {
  EventType,
  isStartupLocality,
  type LogEvent,
  parseTaggedEvent,
  parseUefiVariable,
} from '@sealpod/protocol/event-log';
import { Algorithm } from '@sealpod/protocol/tpm';

/** Which events a pod VM's boot consists of: OVMF starts one unified kernel image from a GPT disk. */
interface KnownEvent {
  readonly registers: readonly number[];
  readonly type: number;
  /** Whether the event's data and digest are as this kind of event has them. */
  readonly accepts: (event: LogEvent, digest: Buffer) => boolean;
  /** How often the event may occur in one register; any number where undefined. */
  readonly atMost?: number;
}

const sha256 = (data: Uint8Array): Buffer => createHash('sha256').update(data).digest();

/** The digest is over the data of the event. */
const overData = ({ data }: LogEvent, digest: Buffer): boolean => sha256(data).equals(digest);

/** The digest is over the variable's value alone (EV_EFI_VARIABLE_BOOT as EDK II measures it). */
const overVariableValue = ({ data }: LogEvent, digest: Buffer): boolean =>
  sha256(parseUefiVariable(data).data).equals(digest);

/**
 * The digest covers something the log does not hold. The register as a whole is then held against a reference value
 * (firmware, firmware configuration) or the digest itself is a component (loader, kernel, initrd).
 */
const overElsewhere = (): boolean => true;

/** The digest is over exactly one of these texts, which is also the data. */
const text =
  (...texts: readonly string[]) =>
  (event: LogEvent, digest: Buffer): boolean =>
    texts.includes(event.data.toString('latin1')) && overData(event, digest);

const tagged =
  (description: string) =>
  ({ data }: LogEvent): boolean =>
    parseTaggedEvent(data).data.equals(Buffer.from(`${description}\0`, 'ascii'));

/** Event descriptions of the kernel's EFI stub (drivers/firmware/efi/libstub/efi-stub-helper.c). */
export const loadOptionsEvent = 'LOADED_IMAGE::LoadOptions';
export const initrdEvent = 'Linux initrd';

const knownEvents: readonly KnownEvent[] = [
  { registers: [0], type: EventType.EV_S_CRTM_VERSION, accepts: overData, atMost: 1 },
  { registers: [0], type: EventType.EV_EFI_PLATFORM_FIRMWARE_BLOB, accepts: overElsewhere },
  { registers: [0], type: EventType.EV_EFI_PLATFORM_FIRMWARE_BLOB2, accepts: overElsewhere },
  // An error separator (data 1) is refused: the firmware could not measure something.
  {
    registers: [0, 1, 2, 3, 4, 5, 6, 7],
    type: EventType.EV_SEPARATOR,
    accepts: (event, digest) => event.data.equals(Buffer.alloc(4)) && overData(event, digest),
    atMost: 1,
  },
  { registers: [1], type: EventType.EV_EFI_VARIABLE_BOOT, accepts: overVariableValue },
  { registers: [1], type: EventType.EV_EFI_VARIABLE_BOOT2, accepts: overData },
  { registers: [1], type: EventType.EV_EFI_HANDOFF_TABLES, accepts: overElsewhere },
  { registers: [1], type: EventType.EV_EFI_HANDOFF_TABLES2, accepts: overElsewhere },
  { registers: [1], type: EventType.EV_PLATFORM_CONFIG_FLAGS, accepts: overElsewhere },
  { registers: [2], type: EventType.EV_EFI_BOOT_SERVICES_DRIVER, accepts: overElsewhere },
  { registers: [2], type: EventType.EV_EFI_RUNTIME_SERVICES_DRIVER, accepts: overElsewhere },
  // "Returning from EFI Application" is not here: something else ran before the image did.
  {
    registers: [4],
    type: EventType.EV_EFI_ACTION,
    accepts: text('Calling EFI Application from Boot Option'),
    atMost: 1,
  },
  { registers: [4], type: EventType.EV_EFI_BOOT_SERVICES_APPLICATION, accepts: overElsewhere, atMost: 2 },
  { registers: [5], type: EventType.EV_EFI_GPT_EVENT, accepts: overData },
  {
    registers: [5],
    type: EventType.EV_EFI_ACTION,
    accepts: text('Exit Boot Services Invocation', 'Exit Boot Services Returned with Success'),
  },
  { registers: [7], type: EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, accepts: overData },
  { registers: [7], type: EventType.EV_EFI_VARIABLE_AUTHORITY, accepts: overData },
  {
    registers: [9],
    type: EventType.EV_EVENT_TAG,
    accepts: (event) => tagged(loadOptionsEvent)(event) || tagged(initrdEvent)(event),
    atMost: 2,
  },
  // Meaning and order of these are checked where the sections are read.
  { registers: [11], type: EventType.EV_IPL, accepts: overElsewhere },
];

/** The SHA-256 digest of an event; undefined where it has none. */
export function sha256Digest({ digests }: LogEvent): Buffer | undefined {
  return digests.find(({ algorithm }) => algorithm === Algorithm.sha256)?.digest;
}

/** The events that nothing accounts for: of no known kind at their register, with wrong data, or one too many. */
export function unknownEvents(events: readonly LogEvent[]): LogEvent[] {
  const counts = new Map<KnownEvent, Map<number, number>>();
  let localities = 0;
  return events.filter((event) => {
    if (event.type === EventType.EV_NO_ACTION) {
      localities += 1;
      return !isStartupLocality(event) || localities > 1;
    }
    const digest = sha256Digest(event);
    const known = knownEvents.find(({ registers, type }) => type === event.type && registers.includes(event.register));
    if (known === undefined || digest === undefined || !accepted(known, event, digest)) return true;
    const byRegister = counts.get(known) ?? new Map<number, number>();
    counts.set(known, byRegister);
    const count = (byRegister.get(event.register) ?? 0) + 1;
    byRegister.set(event.register, count);
    return count > (known.atMost ?? Number.POSITIVE_INFINITY);
  });
}

/** Data that does not even parse makes an event as unknown as a wrong digest does. */
function accepted(known: KnownEvent, event: LogEvent, digest: Buffer): boolean {
  try {
    return known.accepts(event, digest);
  } catch {
    return false;
  }
}
