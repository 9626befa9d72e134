import { createHash } from 'node:crypto';
import { asSealpodError } from '@sealpod/protocol/errors';
import { type EventLog, EventType, eventTypeName, type LogEvent, replay, utf16Text } from '@sealpod/protocol/event-log';
import { Algorithm } from '@sealpod/protocol/tpm';
import type { Verdict } from '@sealpod/protocol/verdict';
import { allOf, check } from '../check.ts';
import { imaBootAggregates } from './boot-aggregate.ts';
import { initrdEvent, loadOptionsEvent, sha256Digest, unknownEvents } from './known-events.ts';

/** Sections of a unified kernel image that the EFI stub measures into PCR 11, in the stub's order. */
const sectionOrder = [
  '.linux',
  '.osrel',
  '.cmdline',
  '.initrd',
  '.ucode',
  '.splash',
  '.dtb',
  '.uname',
  '.sbat',
  '.pcrpkey',
];
/** Sections a pod VM image cannot be without. */
const requiredSections = ['.linux', '.cmdline', '.initrd'];

const sha256 = (...parts: readonly Uint8Array[]): Buffer => createHash('sha256').update(Buffer.concat(parts)).digest();

/** Registers that the guest agent extends (8) or the kernel's IMA (10), after the log has ended. */
const initdataRegister = 8;
const imaRegister = 10;

/** The log replays to the quoted values of all registers it extends. */
export function checkReplay({ events }: EventLog, pcrs: readonly Buffer[]): Verdict {
  const name = 'event log replay';
  try {
    const children = [...replay(events, Algorithm.sha256)].map(([register, value]) =>
      check(`PCR ${register}`, pcrs[register]?.equals(value) ?? false, 'EV_EVENTLOG_REPLAY', {
        expected: pcrs[register]?.toString('hex') ?? 'no such register',
        actual: value.toString('hex'),
        source: 'quote',
      }),
    );
    return allOf(name, children);
  } catch (thrown) {
    const error = asSealpodError(thrown, 'EV_EVENTLOG_REPLAY');
    return { check: name, code: error.code, actual: error.message };
  }
}

/** Registers that no event extends hold their first value, or the one value that is explained otherwise. */
export function checkOtherRegisters({ events }: EventLog, pcrs: readonly Buffer[]): Verdict {
  const extended = new Set(
    events.filter(({ type }) => type !== EventType.EV_NO_ACTION).map(({ register }) => register),
  );
  const children = pcrs.flatMap((value, register) => {
    if (extended.has(register) || register === initdataRegister) return [];
    const accepted = firstValues(register, pcrs);
    return [
      check(
        `PCR ${register}`,
        accepted.some((candidate) => candidate.equals(value)),
        'EV_EVENTLOG_REPLAY',
        {
          expected: accepted.map((candidate) => candidate.toString('hex')).join(' or '),
          actual: value.toString('hex'),
          source: 'no event of the log extends it',
        },
      ),
    ];
  });
  return allOf('registers without events', children);
}

function firstValues(register: number, pcrs: readonly Buffer[]): Buffer[] {
  const zeros = Buffer.alloc(32);
  // Registers of dynamic launch are all ones until one happens (PC Client Platform TPM Profile §4.6).
  if (register >= 17 && register <= 22) return [Buffer.alloc(32, 0xff)];
  return register === imaRegister ? [zeros, ...imaBootAggregates(pcrs)] : [zeros];
}

/** Every event is of a known kind, and none that a boot must have is missing. */
export function checkEventsKnown({ events }: EventLog): Verdict {
  const unknown = unknownEvents(events)
    .slice(0, 16)
    .map((event) => ({
      check: `event ${event.position}`,
      code: 'EV_EVENTLOG_UNKNOWN_EVENT' as const,
      expected: 'an event of a pod VM boot',
      actual: describe(event),
    }));
  const missing = [0, 1, 2, 3, 4, 5, 6, 7].filter(
    (register) => !events.some((event) => event.register === register && event.type === EventType.EV_SEPARATOR),
  );
  const separators = check('separators', missing.length === 0, 'EV_EVENTLOG_REPLAY', {
    expected: 'a separator in each of PCR 0 to 7',
    actual: `none in PCR ${missing.join(', ')}`,
  });
  return allOf('events of the boot', [...unknown, separators]);
}

function describe({ register, type, data }: LogEvent): string {
  const printable = data
    .subarray(0, 64)
    .toString('latin1')
    .replace(/[^\x20-\x7e]/g, '.');
  return `PCR ${register} ${eventTypeName(type)} "${printable}"`;
}

/** What a boot log says was started. Digests are hexadecimal SHA-256. */
export interface BootComponents {
  /** Authenticode digest of the first EFI application: the unified kernel image. */
  readonly loader?: string;
  readonly kernel?: string;
  readonly commandLine?: string;
  readonly initrd?: string;
}

/** Reads the components; what cannot be read is absent, and {@link checkSections} says why. */
export function bootComponents({ events }: EventLog): BootComponents {
  const loader = events.find(
    ({ register, type }) => register === 4 && type === EventType.EV_EFI_BOOT_SERVICES_APPLICATION,
  );
  const sections = measuredSections(events).sections;
  const hex = (digest: Buffer | undefined): string | undefined => digest?.toString('hex');
  return Object.fromEntries(
    Object.entries({
      loader: hex(loader && sha256Digest(loader)),
      kernel: hex(sections.get('.linux')),
      commandLine: hex(sections.get('.cmdline')),
      initrd: hex(sections.get('.initrd')),
    }).filter(([, value]) => value !== undefined),
  );
}

/**
 * PCR 11 holds pairs of events, name and content, of known sections in the stub's order, each once; and the kernel was
 * started with exactly the measured command line and initrd (PCR 9).
 */
export function checkSections({ events }: EventLog): Verdict {
  const { sections, problem } = measuredSections(events);
  const missing = requiredSections.filter((name) => !sections.has(name));
  const initrds = events.filter(({ register, data }) => register === 9 && data.includes(initrdEvent));
  const initrd = sections.get('.initrd');
  const loaded = initrds[0] && sha256Digest(initrds[0]);
  return allOf('unified kernel image', [
    check('sections', problem === undefined && missing.length === 0, 'EV_EVENTLOG_UNKNOWN_EVENT', {
      expected: 'each measured section once, by name and content',
      actual: problem ?? `missing: ${missing.join(', ')}`,
      source: 'PCR 11',
    }),
    check(
      'loaded initrd',
      initrds.length === 1 && initrd !== undefined && (loaded?.equals(initrd) ?? false),
      'EV_EVENTLOG_UNKNOWN_EVENT',
      {
        expected: initrd?.toString('hex') ?? 'the .initrd section',
        actual: initrds.length === 1 ? (loaded?.toString('hex') ?? 'no digest') : `${initrds.length} initrd events`,
        source: 'PCR 9 against PCR 11',
      },
    ),
  ]);
}

interface MeasuredSections {
  readonly sections: ReadonlyMap<string, Buffer>;
  readonly problem?: string;
}

function measuredSections(events: readonly LogEvent[]): MeasuredSections {
  const measured = events.filter(({ register, type }) => register === 11 && type === EventType.EV_IPL);
  const sections = new Map<string, Buffer>();
  let order = -1;
  for (let index = 0; index < measured.length; index += 2) {
    const [nameEvent, contentEvent] = [measured[index], measured[index + 1]];
    const name = nameEvent && utf16Text(nameEvent.data);
    const nameDigest = nameEvent && sha256Digest(nameEvent);
    const content = contentEvent && sha256Digest(contentEvent);
    if (name === undefined || nameDigest === undefined || contentEvent === undefined || content === undefined) {
      return { sections, problem: `event ${nameEvent?.position} is not the name of a section` };
    }
    if (!nameDigest.equals(sha256(Buffer.from(`${name}\0`, 'ascii'))) || utf16Text(contentEvent.data) !== name) {
      return { sections, problem: `events ${nameEvent?.position} and ${contentEvent.position} do not belong together` };
    }
    if (sectionOrder.indexOf(name) <= order)
      return { sections, problem: `section ${name} is unknown, repeated or out of order` };
    order = sectionOrder.indexOf(name);
    sections.set(name, content);
  }
  return { sections };
}

/**
 * The text is the command line that was measured as a section and that the kernel was started with. The section may end
 * with a NUL; the kernel adds a new line to what it shows.
 */
export function checkCommandLine({ events }: EventLog, text: string | undefined): Verdict {
  const name = 'kernel command line text';
  const section = measuredSections(events).sections.get('.cmdline');
  if (text === undefined || section === undefined) {
    return check(name, false, 'EV_EVENTLOG_REPLAY', {
      expected: 'the text and its measurement',
      actual: text === undefined ? 'no text' : 'no .cmdline section',
    });
  }
  const line = commandLineOf(text);
  const candidates = [sha256(Buffer.from(line)), sha256(Buffer.from(`${line}\0`))];
  const options = events.filter(({ register, data }) => register === 9 && data.includes(loadOptionsEvent));
  const optionsDigest = options[0] && sha256Digest(options[0]);
  return allOf(name, [
    check(
      'measured section',
      candidates.some((candidate) => candidate.equals(section)),
      'EV_EVENTLOG_REPLAY',
      {
        expected: section.toString('hex'),
        actual: candidates[1]?.toString('hex') ?? '',
        source: '.cmdline in PCR 11',
      },
    ),
    check(
      'load options',
      options.length === 1 && (optionsDigest?.equals(sha256(Buffer.from(`${line}\0`, 'utf16le'))) ?? false),
      'EV_EVENTLOG_REPLAY',
      {
        expected: optionsDigest?.toString('hex') ?? 'one load options event',
        actual:
          options.length === 1
            ? sha256(Buffer.from(`${line}\0`, 'utf16le')).toString('hex')
            : `${options.length} events`,
        source: 'load options in PCR 9',
      },
    ),
  ]);
}

/** The command line without the new line that /proc/cmdline ends with. */
export function commandLineOf(text: string): string {
  return text.endsWith('\n') ? text.slice(0, -1) : text;
}

/** PCR 8 holds the digest of the initdata and nothing else; zeros where there is no initdata. */
export function checkInitdata(pcrs: readonly Buffer[], digest: Buffer | undefined): Verdict {
  const expected = digest === undefined ? Buffer.alloc(32) : sha256(Buffer.alloc(32), digest);
  return check('initdata', pcrs[initdataRegister]?.equals(expected) ?? false, 'INITDATA_DIGEST', {
    expected: expected.toString('hex'),
    actual: pcrs[initdataRegister]?.toString('hex') ?? '',
    source: digest === undefined ? 'PCR 8 without initdata' : `PCR 8 for initdata ${digest.toString('hex')}`,
  });
}
