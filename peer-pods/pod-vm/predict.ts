import { createHash } from 'node:crypto';
import { authenticodeDigest, readSections } from './portable-executable.ts';
import { splitUnifiedKernelImage } from './unified-kernel-image.ts';

/** SHA-256 bank values of platform configuration registers, by index. */
export type Registers = ReadonlyMap<number, Buffer>;

/** Digests of what is measured of the image, hex, by component name. */
export interface ImageComponents {
  readonly loader: string;
  readonly kernel: string;
  readonly command_line: string;
  readonly initrd: string;
  readonly root_hash: string;
}

const separator = digest(Buffer.alloc(4));

/**
 * Computes the registers that depend on the image alone (TCG PC Client Platform Firmware Profile 1.06, section 3.3.4;
 * systemd-stub(7) for 11; the kernel's EFI stub for 9):
 *
 * - 4: boot option called, separator, the UKI's Authenticode digest, the kernel's (the stub starts it as a program);
 * - 5: separator, partition table, two exit events of the boot services;
 * - 9: command line as load options (UTF-16, closing NUL), initrd;
 * - 11: name (closing NUL) and content of each section that the stub measures, in its order. Releases of the stub differ
 *   in which those are (later ones measure their own .sbat, too), so `measuredSections` names them.
 */
export function predictImageRegisters(uki: Buffer, gptEvent: Buffer, measuredSections: readonly string[]): Registers {
  const { linux, initrd, commandLine } = splitUnifiedKernelImage(uki);
  const sections = new Map(readSections(uki).map((section) => [section.name, section.content]));
  const text = (value: string): Buffer => digest(Buffer.from(value, 'latin1'));
  return new Map([
    [
      4,
      extend(
        text('Calling EFI Application from Boot Option'),
        separator,
        authenticodeDigest(uki),
        authenticodeDigest(linux),
      ),
    ],
    [
      5,
      extend(
        separator,
        digest(gptEvent),
        text('Exit Boot Services Invocation'),
        text('Exit Boot Services Returned with Success'),
      ),
    ],
    [9, extend(digest(Buffer.from(`${commandLine}\0`, 'utf16le')), digest(initrd))],
    [
      11,
      extend(...measuredSections.flatMap((name) => [text(`${name}\0`), digest(sections.get(name) ?? Buffer.alloc(0))])),
    ],
  ]);
}

/**
 * Register 10 after the kernel's first and only IMA entry of an image without an IMA policy: `boot_aggregate`, the
 * digest of registers 0 to 9, in the template ima-sig (kernel documentation, "IMA Template Management Mechanism").
 */
export function predictBootAggregate(registers: Registers): Buffer {
  const first = Array.from({ length: 10 }, (_, index) => registers.get(index) ?? Buffer.alloc(32));
  const field = (content: Buffer): Buffer[] => {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(content.length);
    return [length, content];
  };
  const value = Buffer.concat([Buffer.from('sha256:\0'), digest(Buffer.concat(first))]);
  const template = [...field(value), ...field(Buffer.from('boot_aggregate\0')), ...field(Buffer.alloc(0))];
  return extend(digest(Buffer.concat(template)));
}

/** The components' digests. The command line is measured with its closing NUL. */
export function measureComponents(uki: Buffer): ImageComponents {
  const { linux, initrd, commandLine } = splitUnifiedKernelImage(uki);
  return {
    loader: authenticodeDigest(uki).toString('hex'),
    kernel: digest(linux).toString('hex'),
    command_line: digest(Buffer.from(`${commandLine}\0`)).toString('hex'),
    initrd: digest(initrd).toString('hex'),
    root_hash: /(?:^| )roothash=([0-9a-f]{64})(?: |$)/.exec(commandLine)?.[1] ?? '',
  };
}

/** PCR value after extending zeros by digests in order. */
export function extend(...digests: readonly Buffer[]): Buffer {
  return digests.reduce((value, next) => digest(Buffer.concat([value, next])), Buffer.alloc(32));
}

function digest(content: Uint8Array): Buffer {
  return createHash('sha256').update(content).digest();
}
