import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { defaultSeccomp } from './seccomp.ts';

const folder = mkdtempSync(join(tmpdir(), 'seccomp-'));
const file = join(folder, 'seccomp.json');
afterAll(() => rmSync(folder, { recursive: true }));
const allow = (name: string, more: object = {}) => ({ names: [name], action: 'SCMP_ACT_ALLOW', args: [], ...more });
writeFileSync(
  file,
  JSON.stringify({
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: 38,
    defaultErrno: 'ENOSYS',
    archMap: [{ architecture: 'SCMP_ARCH_X86_64', subArchitectures: ['SCMP_ARCH_X86'] }],
    syscalls: [
      allow('read', { includes: {}, excludes: {}, comment: 'x' }),
      allow('bpf', { includes: { caps: ['CAP_BPF', 'CAP_SYS_ADMIN'] } }),
      {
        names: ['bpf'],
        action: 'SCMP_ACT_ERRNO',
        errnoRet: 1,
        args: null,
        excludes: { caps: ['CAP_BPF', 'CAP_SYS_ADMIN'] },
      },
      allow('arch_prctl', { includes: { arches: ['amd64', 'x32'] } }),
      allow('s390_runtime_instr', { includes: { arches: ['s390x'] } }),
      allow('personality', { args: [{ index: 0, value: 8, valueTwo: 0, op: 'SCMP_CMP_EQ' }] }),
    ],
  }),
);

describe('the guest’s profile for RuntimeDefault', () => {
  it('has what any container may call on this architecture, and refuses the rest as the profile says', async () => {
    expect(await defaultSeccomp(['CAP_CHOWN'], file, 'x64')).toEqual({
      defaultAction: 'SCMP_ACT_ERRNO',
      defaultErrnoRet: 38,
      architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86'],
      syscalls: [
        { names: ['read'], action: 'SCMP_ACT_ALLOW' },
        { names: ['bpf'], action: 'SCMP_ACT_ERRNO', errnoRet: 1 },
        { names: ['arch_prctl'], action: 'SCMP_ACT_ALLOW' },
        {
          names: ['personality'],
          action: 'SCMP_ACT_ALLOW',
          args: [{ index: 0, value: 8, valueTwo: 0, op: 'SCMP_CMP_EQ' }],
        },
      ],
    });
  });

  it('follows the capabilities', async () => {
    const { syscalls } = (await defaultSeccomp(['CAP_SYS_ADMIN'], file, 'x64')) as { syscalls: readonly object[] };
    expect(syscalls).toContainEqual({ names: ['bpf'], action: 'SCMP_ACT_ALLOW' });
    expect(syscalls).not.toContainEqual(expect.objectContaining({ action: 'SCMP_ACT_ERRNO' }));
  });

  it('an image without it, or another architecture, runs no such container', async () => {
    await expect(defaultSeccomp([], join(folder, 'none'), 'x64')).rejects.toMatchObject({ code: 'PREREQUISITE' });
    await expect(defaultSeccomp([], file, 'mips')).rejects.toMatchObject({ code: 'UNSUPPORTED' });
  });
});
