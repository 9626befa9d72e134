import { createHash } from 'node:crypto';

/**
 * The values PCR 10 can have after Linux IMA has measured its `boot_aggregate` and nothing else: one extension with the
 * template hash over SHA-256 of PCR 0 to 9 as they were then (PCR 8 still zero), for the templates `ima-ng` and
 * `ima-sig` (security/integrity/ima/ima_init.c, ima_template_lib.c; seen with the `ima-sig` of Debian's 6.1 kernel).
 */
export function imaBootAggregates(pcrs: readonly Buffer[]): Buffer[] {
  const registers = pcrs.slice(0, 10).map((value, register) => (register === 8 ? Buffer.alloc(32) : value));
  const aggregate = createHash('sha256').update(Buffer.concat(registers)).digest();
  const imaNg = Buffer.concat([
    templateField(Buffer.concat([Buffer.from('sha256:\0', 'ascii'), aggregate])),
    templateField(Buffer.from('boot_aggregate\0', 'ascii')),
  ]);
  const imaSig = Buffer.concat([imaNg, templateField(Buffer.alloc(0))]);
  return [imaNg, imaSig].map((template) =>
    createHash('sha256').update(Buffer.alloc(32)).update(createHash('sha256').update(template).digest()).digest(),
  );
}

function templateField(data: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(data.length);
  return Buffer.concat([length, data]);
}
