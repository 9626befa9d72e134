/** RNDRESEEDCRNG of random(4): the kernel's generator takes a new seed from its pool and the processor at once. */
const reseedRequest = 0x5207;

/** ioctl(0, RNDRESEEDCRNG), then exit with what it returned: 0, or the low byte of a negative error number. */
const instructions = Buffer.from([
  ...[0x31, 0xff], // xor edi, edi
  ...[0xbe, reseedRequest & 0xff, reseedRequest >> 8, 0, 0], // mov esi, RNDRESEEDCRNG
  ...[0x31, 0xd2], // xor edx, edx
  ...[0xb8, 16, 0, 0, 0], // mov eax, SYS_ioctl
  ...[0x0f, 0x05], // syscall
  ...[0x89, 0xc7], // mov edi, eax
  ...[0xb8, 60, 0, 0, 0], // mov eax, SYS_exit
  ...[0x0f, 0x05], // syscall
]);

const headerBytes = 64;
const programHeaderBytes = 56;
const loadAddress = 0x400000n;

/**
 * A static program for Linux on x86-64 that reseeds the kernel's random number generator; its standard input must be
 * /dev/urandom. No program of the guest's packages makes this call, and a script cannot.
 *
 * ELF as in the System V ABI, chapters 4 and 5: a header and one segment, which is the whole file.
 */
export function reseedProgram(): Buffer {
  const size = BigInt(headerBytes + programHeaderBytes + instructions.length);
  const header = Buffer.alloc(headerBytes);
  // 64-bit, little-endian, version 1.
  Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]).copy(header);
  header.writeUInt16LE(2, 16); // e_type: executable
  header.writeUInt16LE(62, 18); // e_machine: x86-64
  header.writeUInt32LE(1, 20); // e_version
  header.writeBigUInt64LE(loadAddress + BigInt(headerBytes + programHeaderBytes), 24); // e_entry
  header.writeBigUInt64LE(BigInt(headerBytes), 32); // e_phoff
  header.writeUInt16LE(headerBytes, 52); // e_ehsize
  header.writeUInt16LE(programHeaderBytes, 54); // e_phentsize
  header.writeUInt16LE(1, 56); // e_phnum
  const segment = Buffer.alloc(programHeaderBytes);
  segment.writeUInt32LE(1, 0); // p_type: load
  segment.writeUInt32LE(5, 4); // p_flags: read, execute
  segment.writeBigUInt64LE(loadAddress, 16); // p_vaddr
  segment.writeBigUInt64LE(loadAddress, 24); // p_paddr
  segment.writeBigUInt64LE(size, 32); // p_filesz
  segment.writeBigUInt64LE(size, 40); // p_memsz
  segment.writeBigUInt64LE(0x1000n, 48); // p_align
  return Buffer.concat([header, segment, instructions]);
}
