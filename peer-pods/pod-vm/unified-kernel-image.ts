import { appendSections, dropSections, readSections } from './portable-executable.ts';

export interface UnifiedKernelImage {
  readonly linux: Buffer;
  readonly initrd: Buffer;
  /** Command line without its closing NUL. */
  readonly commandLine: string;
}

/**
 * Kernel command line of the pod VM: serial console for errors only, every failure ends the machine, kernel lockdown
 * and signed modules only (so that neither the host's ACPI tables nor root inside can change the kernel), no crypto
 * self-tests (0.3 s of every start).
 */
export function commandLine(rootHash: string, dataBlocks: number): string {
  const fixed =
    'console=ttyS0 quiet panic=-1 oops=panic lockdown=confidentiality module.sig_enforce=1 cryptomgr.notests';
  return `${fixed} roothash=${rootHash} rootblocks=${dataBlocks}`;
}

/**
 * Joins a systemd EFI stub, kernel, initrd and command line to one EFI program (Unified Kernel Image, UAPI group
 * specification 5). No .osrel section: later releases of the stub hand it to the kernel as one more initrd, so that what
 * register 9 holds would depend on the release.
 */
export function joinUnifiedKernelImage(stub: Buffer, parts: UnifiedKernelImage): Buffer {
  return appendSections(stub, [
    { name: '.cmdline', content: Buffer.from(`${parts.commandLine}\0`) },
    { name: '.linux', content: parts.linux },
    { name: '.initrd', content: parts.initrd },
  ]);
}

/** The sections that a UKI adds to its stub, by name. */
export const unifiedSections = ['.cmdline', '.linux', '.initrd'] as const;

/** Takes a UKI apart. A section that is missing is an empty buffer. */
export function splitUnifiedKernelImage(program: Buffer): UnifiedKernelImage {
  const sections = new Map(readSections(program).map((section) => [section.name, section.content]));
  const content = (name: string): Buffer => sections.get(name) ?? Buffer.alloc(0);
  return {
    linux: content('.linux'),
    initrd: content('.initrd'),
    commandLine: content('.cmdline').toString('utf8').replace(/\0$/, ''),
  };
}

/** The stub of a UKI: what is left without the sections that `joinUnifiedKernelImage` added. */
export function stubOf(program: Buffer): Buffer {
  return dropSections(program, unifiedSections);
}
