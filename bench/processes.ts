import { readFileSync } from 'node:fs';

/** USER_HZ: the kernel's unit for processor time towards programs is 1/100 s on every architecture of Linux's today. */
const ticksPerSecond = 100;

/** Processor time that a process has used, all threads, user and kernel, in seconds. */
export function processorSeconds(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  // The name of the program stands in parentheses and may hold spaces; times are fields 14 and 15 (proc(5)).
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}
