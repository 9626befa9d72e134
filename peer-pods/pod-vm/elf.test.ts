import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { elfNeeds, isElf } from './elf.ts';

const node = readFileSync(process.execPath);

describe('elfNeeds', () => {
  it('names linker and libraries of the Node binary', () => {
    const { interpreter, libraries } = elfNeeds(node, 'node');
    expect(interpreter).toBe('/lib64/ld-linux-x86-64.so.2');
    expect(libraries).toEqual(expect.arrayContaining(['libc.so.6', 'libstdc++.so.6', 'libm.so.6']));
  });

  it('refuses what is not ELF, of another class, or cut off', () => {
    expect(isElf(Buffer.from('#!/bin/sh\n'.padEnd(80)))).toBe(false);
    expect(() => elfNeeds(Buffer.alloc(100), 'zeros')).toThrow('zeros is not a 64-bit');
    const other = Buffer.from(node.subarray(0, 4096));
    other[4] = 1;
    expect(() => elfNeeds(other, 'other')).toThrow('other is not a 64-bit');
    expect(() => elfNeeds(node.subarray(0, 80), 'short')).toThrow('short is cut off');
  });
});
