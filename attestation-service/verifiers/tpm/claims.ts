import { createHash } from 'node:crypto';
import type { JsonObject } from '@sealpod/protocol/json';
import type { EnrolledRoot } from '../../endorsements/certificate-path.ts';
import type { Expectations } from '../verifier.ts';
import { bootComponents, commandLineOf } from './boot-log.ts';
import { debugSwitches } from './debug-switches.ts';
import type { TpmStatement } from './statement.ts';

/** Measured components and the reference values they are held against, in the order they run. */
export const componentReferenceValues = {
  firmware: 'tpm_firmware',
  firmware_configuration: 'tpm_firmware_configuration',
  loader: 'tpm_loader',
  kernel: 'tpm_kernel',
  command_line: 'tpm_command_line',
  initrd: 'tpm_initrd',
  root_hash: 'tpm_root_hash',
  initdata: 'tpm_initdata',
} as const;

/** Registers that only the firmware and its settings decide, beside PCR 0 and the loader's PCR 4. */
const firmwareConfigurationRegisters = [1, 2, 3, 5, 6, 7];

/** Why an attestation key is to be believed, and for a proved one the root of its TPM. */
export interface KeyTrust {
  readonly trust: 'activated' | 'enrolled' | 'self-asserted';
  readonly root?: EnrolledRoot;
}

/** The claims of a verified statement. */
export function tpmClaims(statement: TpmStatement, { trust, root }: KeyTrust, expectations: Expectations): JsonObject {
  const { attest, pcrs } = statement;
  const commandLine = statement.commandLine === undefined ? undefined : commandLineOf(statement.commandLine);
  const switches = debugSwitches(commandLine, expectations);
  const registers = Object.fromEntries(
    pcrs.map((value, index) => [`pcr${String(index).padStart(2, '0')}`, value.toString('hex')]),
  );
  return {
    ...registers,
    ak_public: statement.attestationKeyText,
    ak_trust: trust,
    components: components(statement, commandLine, expectations),
    // Null, which no policy's `== false` holds for: nobody knows what made a key that vouches for itself.
    simulated: trust === 'self-asserted' ? null : (root?.simulated ?? false),
    ek_root: root?.name ?? null,
    debug: switches.length > 0,
    debug_switches: switches,
    ...(commandLine === undefined ? {} : { command_line: commandLine, template: isTemplate(commandLine) }),
    clock: Number(attest.clock.time),
    clock_safe: attest.clock.safe,
    reset_count: attest.clock.resetCount,
    restart_count: attest.clock.restartCount,
    firmware_version: attest.firmwareVersion.toString(16).padStart(16, '0'),
    report_data: attest.extraData.toString('hex'),
    ...(expectations.initDataDigest === undefined ? {} : { init_data: expectations.initDataDigest.toString('hex') }),
  };
}

function components(
  statement: TpmStatement,
  commandLine: string | undefined,
  { initDataDigest }: Expectations,
): JsonObject {
  const { pcrs, eventLog } = statement;
  const boot = eventLog === undefined ? {} : bootComponents(eventLog);
  const configuration = firmwareConfigurationRegisters.map((register) => pcrs[register] ?? Buffer.alloc(0));
  const all: Record<keyof typeof componentReferenceValues, string | undefined> = {
    firmware: pcrs[0]?.toString('hex'),
    firmware_configuration: createHash('sha256').update(Buffer.concat(configuration)).digest('hex'),
    loader: boot.loader,
    kernel: boot.kernel,
    command_line: boot.commandLine,
    initrd: boot.initrd,
    root_hash: rootHash(commandLine),
    initdata: initDataDigest?.toString('hex'),
  };
  return Object.fromEntries(
    Object.entries(all).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
  );
}

/** Whether the machine is one of several that were cloned from one that had booted: by its name of the switch, whatever its value. */
function isTemplate(commandLine: string): boolean {
  return commandLine.split(/\s+/).some((word) => word.split('=', 1)[0] === 'sealpod.template');
}

/** The dm-verity root hash of the command line; undefined where there is none or more than one. */
function rootHash(commandLine: string | undefined): string | undefined {
  const hashes = (commandLine ?? '').split(/\s+/).filter((word) => word.startsWith('roothash='));
  return hashes.length === 1 ? hashes[0]?.slice('roothash='.length) : undefined;
}
