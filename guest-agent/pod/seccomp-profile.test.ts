import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { JsonObject } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { defaultSeccompProfile } from './seccomp-profile.ts';
import {
  allowAll,
  busyboxImages,
  cannotRunContainers,
  containerRequest,
  type PodFixture,
  readAll,
  startPod,
} from './testing/pod-fixture.ts';

const reason = cannotRunContainers();
const permissionDenied = 1;

/** An x86-64 program that makes one system call with zeros as arguments and exits with its error number. */
function callProgram(number: number): Buffer {
  const [base, headers] = [0x40_0000, 120];
  const code = Buffer.from('b80000000031ff31f631d20f05f7d889c7b83c0000000f05', 'hex');
  code.writeUInt32LE(number, 1);
  const file = Buffer.alloc(headers + code.length);
  // ELF header: 64-bit, little-endian, executable for x86-64, one program header behind it.
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  file.writeUInt16LE(2, 16);
  file.writeUInt16LE(62, 18);
  file.writeUInt32LE(1, 20);
  file.writeBigUInt64LE(BigInt(base + headers), 24);
  file.writeBigUInt64LE(64n, 32);
  file.writeUInt16LE(64, 52);
  file.writeUInt16LE(56, 54);
  file.writeUInt16LE(1, 56);
  // The whole file is one readable and executable segment.
  file.writeUInt32LE(1, 64);
  file.writeUInt32LE(5, 68);
  file.writeBigUInt64LE(BigInt(base), 80);
  file.writeBigUInt64LE(BigInt(base), 88);
  for (const at of [96, 104]) file.writeBigUInt64LE(BigInt(file.length), at);
  file.writeBigUInt64LE(0x1000n, 112);
  file.set(code, headers);
  return file;
}

const calls = { unshare: 272, bpf: 321, userfaultfd: 323, io_uring_setup: 425, getpid: 39 } as const;

describe.skipIf(reason !== undefined || process.arch !== 'x64')(
  `S-36: system calls of a container${reason ? ` (skipped: ${reason})` : ''}`,
  () => {
    let pod: PodFixture;
    beforeAll(async () => {
      pod = await startPod(allowAll, {
        images: {
          ...busyboxImages,
          async pull(reference, bundle, signal) {
            const pulled = await busyboxImages.pull(reference, bundle, signal);
            for (const [name, number] of Object.entries(calls)) {
              const path = join(pulled.rootfs, 'bin', `call-${name}`);
              writeFileSync(path, callProgram(number));
              chmodSync(path, 0o755);
            }
            return pulled;
          },
        },
      });
    });
    afterAll(() => pod?.close());

    /** Exit status and output of a container. */
    async function run(id: string, args: readonly string[], linux: JsonObject = {}): Promise<[number, string]> {
      await pod.agent.createContainer(containerRequest(pod.root, { id, args, spec: { Linux: linux } }));
      await pod.agent.startContainer({ containerId: id });
      const output = await readAll((len) => pod.agent.readStdout({ containerId: id, execId: '', len }));
      const { status } = await pod.agent.waitProcess({ containerId: id, execId: '' });
      await pod.agent.removeContainer({ containerId: id });
      return [status, output];
    }

    it.each(['unshare', 'bpf', 'userfaultfd', 'io_uring_setup'])(
      '%s is refused, though the host sent no profile',
      async (name) => {
        expect((await run(`no-${name}`, [`call-${name}`]))[0]).toBe(permissionDenied);
      },
    );

    it('lets ordinary calls through, and filters commands that are executed later too', async () => {
      expect(await run('status', ['sh', '-c', 'grep Seccomp: /proc/self/status || cat /proc/self/status'])).toEqual([
        0,
        expect.stringMatching(/^Seccomp:\s+2$/m),
      ]);
      await pod.agent.createContainer(containerRequest(pod.root, { id: 'long', args: ['sleep', '60'] }));
      await pod.agent.startContainer({ containerId: 'long' });
      const { OCI } = containerRequest(pod.root, { id: 'long', args: ['call-unshare'] });
      await pod.agent.execProcess({ containerId: 'long', execId: 'e', ...(OCI.Process && { process: OCI.Process }) });
      expect(await pod.agent.waitProcess({ containerId: 'long', execId: 'e' })).toMatchObject({
        status: permissionDenied,
      });
      await pod.agent.removeContainer({ containerId: 'long' });
    });

    it('would make the call without the filter: what the test sees is the filter', async () => {
      const [status] = await run('open', ['call-unshare'], { Seccomp: { DefaultAction: 'SCMP_ACT_ALLOW' } });
      expect(status).toBe(0);
    });
  },
);

describe('the default profile', () => {
  const names = (capabilities: readonly string[]) =>
    (defaultSeccompProfile(capabilities)['syscalls'] as { names: string[]; action: string }[])
      .filter(({ action }) => action === 'SCMP_ACT_ALLOW')
      .flatMap((rule) => rule.names);

  it('denies by default, and gives with a capability the calls that belong to it', () => {
    expect(defaultSeccompProfile([])).toMatchObject({ defaultAction: 'SCMP_ACT_ERRNO' });
    for (const name of ['mount', 'unshare', 'setns', 'bpf', 'keyctl', 'kexec_load', 'io_uring_setup', 'reboot']) {
      expect(names([]), name).not.toContain(name);
    }
    expect(names(['CAP_SYS_ADMIN'])).toEqual(expect.arrayContaining(['mount', 'unshare', 'setns', 'bpf']));
    expect(names(['CAP_SYS_ADMIN'])).not.toContain('kexec_load');
    expect(names(['CAP_SYS_TIME'])).toContain('clock_settime');
    expect(names(['toString', 'CAP_UNKNOWN'])).toEqual(names([]));
  });
});
