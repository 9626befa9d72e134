import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { Duplex as DuplexStream } from 'node:stream';
import { SealpodError } from '@sealpod/protocol/errors';
import { Health } from '@sealpod/protocol/gen/kata/health_pb';
import { createClient, TtrpcConnection, TtrpcServer } from '@sealpod/protocol/ttrpc';
import { describe, expect, it } from 'vitest';
import { createConsoleLog, failureFields } from './console-log.ts';
import { parseKernelSwitches, requireWoken } from './kernel-command-line.ts';
import { prepareSystem } from './system.ts';
import { openVirtioPort, type PortFile, servePort } from './virtio-serial.ts';

describe('kernel switches', () => {
  it('are the safe ones by default', () => {
    expect(parseKernelSwitches('console=ttyS0 quiet roothash=abc\n')).toEqual({
      attester: 'tpm',
      restFeatures: 'resource',
      template: false,
    });
  });

  it('are read by their whole name, the last one wins', () => {
    expect(parseKernelSwitches('xsealpod.attester=sample agent.guest_components_rest_api=all')).toEqual({
      attester: 'tpm',
      restFeatures: 'all',
      template: false,
    });
    expect(parseKernelSwitches('sealpod.attester=sample sealpod.attester=tpm').attester).toBe('tpm');
    expect(parseKernelSwitches('sealpod.attester=sample').attester).toBe('sample');
  });

  it.each([
    'sealpod.attester=',
    'sealpod.attester=none',
    'agent.guest_components_rest_api=everything',
    'sealpod.template=yes',
  ])('refuse %s', (line) => {
    expect(() => parseKernelSwitches(line)).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });
});

describe('a machine that starts from a template', () => {
  const [booted, cloned] = ['quiet', 'quiet sealpod.template=1'].map(parseKernelSwitches);

  it('goes on only where its command line says so, and one that says so only where it was woken', () => {
    if (booted === undefined || cloned === undefined) throw new Error('no switches');
    requireWoken(booted, undefined);
    requireWoken(cloned, '7.31');
    for (const [switches, woken] of [
      [booted, '7.31'],
      [cloned, undefined],
    ] as const) {
      expect(() => requireWoken(switches, woken)).toThrow(expect.objectContaining({ code: 'USAGE' }));
    }
  });
});

describe('console log', () => {
  it('writes one JSON line, whatever the text', () => {
    const lines: string[] = [];
    const log = createConsoleLog((line) => lines.push(line));
    log(
      'error',
      'two\nlines',
      failureFields(new SealpodError('POLICY_DENY', 'no', { correlationId: 'c', expected: 'hidden' })),
    );
    expect(lines).toHaveLength(1);
    expect(lines[0]?.split('\n')).toHaveLength(2);
    const { time, uptime, ...rest } = JSON.parse(lines[0] ?? '');
    expect(Number.isNaN(Date.parse(time))).toBe(false);
    expect(uptime).toBeGreaterThan(0);
    expect(rest).toEqual({ level: 'error', message: 'two\nlines', code: 'POLICY_DENY', error: 'no', correlation: 'c' });
  });
});

describe('prepareSystem', () => {
  function system(mountTable: string) {
    const commands: string[] = [];
    const points = mountTable.split(' ').filter((point) => point !== '');
    return {
      commands,
      calls: {
        run: async (program: string, parameters: readonly string[]) => {
          commands.push([program, ...parameters].join(' '));
          if (program === 'mount') points.push(parameters.at(-1) ?? '');
        },
        mountTable: () => points.map((point, index) => `${index} 1 0:${index} / ${point} rw - x x rw`).join('\n'),
        makeDirectory: () => undefined,
        writeHostname: () => undefined,
        loopbackFlags: () => '0x8\n',
      },
    };
  }

  it('makes the mounts that the initial RAM disk left out, each after those it needs', async () => {
    const { commands, calls } = system('/ /proc /sys /dev /run /tmp');
    await prepareSystem(calls);
    expect(commands).toEqual([
      'mount -t devpts -o nosuid,noexec,mode=0620,ptmxmode=0666 devpts /dev/pts',
      'mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /dev/shm',
      'mount -t mqueue -o nosuid,nodev,noexec mqueue /dev/mqueue',
      'mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate cgroup2 /sys/fs/cgroup',
      'mount -t securityfs -o nosuid,nodev,noexec securityfs /sys/kernel/security',
      'ip link set lo up',
    ]);
  });

  it('begins with proc where there is nothing, and does nothing twice', async () => {
    const { commands, calls } = system('/');
    await prepareSystem(calls);
    expect(commands[0]).toBe('mount -t proc -o nosuid,nodev,noexec proc /proc');
    expect(commands).toHaveLength(11);
    commands.length = 0;
    await prepareSystem(calls);
    expect(commands).toEqual(['ip link set lo up']);
    commands.length = 0;
    await prepareSystem({ ...calls, loopbackFlags: () => '0x9\n' });
    expect(commands).toEqual([]);
  });

  it('fails where a mount fails', async () => {
    const { calls } = system('/');
    const failing = { ...calls, run: () => Promise.reject(new SealpodError('PREREQUISITE', 'mount failed')) };
    await expect(prepareSystem(failing)).rejects.toMatchObject({ code: 'PREREQUISITE' });
  });
});

/** A virtio-serial port as the kernel behaves: reads give 0 while the host is away, writes may take a part or be busy. */
class FakePort implements PortFile {
  #incoming: Buffer[] = [];
  #connected = false;
  #wake: (() => void) | undefined;
  readonly written: Buffer[] = [];
  onWrite: ((bytes: Buffer) => void) | undefined;
  #writes = 0;

  hostConnects(): void {
    this.#connected = true;
    this.#signal();
  }

  hostSends(bytes: Buffer): void {
    this.#incoming.push(bytes);
    this.#signal();
  }

  hostLeaves(): void {
    this.#connected = false;
    this.#signal();
  }

  #signal(): void {
    this.#wake?.();
    this.#wake = undefined;
  }

  async read(buffer: Buffer): Promise<number> {
    for (;;) {
      const next = this.#incoming.shift();
      if (next !== undefined) {
        const length = next.copy(buffer);
        if (length < next.length) this.#incoming.unshift(next.subarray(length));
        return length;
      }
      if (!this.#connected) return 0;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async write(bytes: Uint8Array): Promise<number> {
    this.#writes++;
    if (this.#writes % 3 === 1) throw Object.assign(new Error('busy'), { code: 'EAGAIN' });
    const part = Buffer.from(bytes.subarray(0, Math.max(1, bytes.length >> 1)));
    this.written.push(part);
    this.onWrite?.(part);
    return part.length;
  }
}

describe('virtio-serial', () => {
  /** The host's end of a fake port as a stream. */
  function hostEnd(port: FakePort): Duplex {
    const host = new DuplexStream({
      read: () => undefined,
      write: (chunk: Buffer, _encoding, done) => {
        port.hostSends(Buffer.from(chunk));
        done();
      },
    });
    port.onWrite = (bytes) => {
      if (!host.destroyed) host.push(bytes);
    };
    return host;
  }

  it('serves ttrpc through partial and busy writes, and begins anew when the host comes back in mid-message', async () => {
    const port = new FakePort();
    const server = new TtrpcServer().addService(Health, { check: () => ({ status: 1 }) });
    let streams = 0;
    const stop = new AbortController();
    const served = servePort(
      port,
      (stream) => {
        streams++;
        server.serve(stream);
      },
      stop.signal,
    );
    for (let round = 1; round <= 3; round++) {
      port.hostConnects();
      const connection = new TtrpcConnection(hostEnd(port));
      const health = createClient(Health, connection);
      const answers = await Promise.all([health.check({}), health.check({}), health.check({})]);
      expect(answers.map(({ status }) => status)).toEqual([1, 1, 1]);
      expect(streams).toBe(round);
      // The host is killed within a frame: its rest must not be taken for the begin of the next host's.
      port.hostSends(Buffer.from([0, 0, 0, 99, 0]));
      port.hostLeaves();
      connection.close();
      // Wait for the guest to see it: a read that gives nothing.
      await new Promise<void>((resolve) => {
        const read = port.read.bind(port);
        port.read = async (buffer) => {
          const length = await read(buffer);
          if (length === 0) {
            port.read = read;
            setImmediate(resolve);
          }
          return length;
        };
        port.hostLeaves();
      });
    }
    stop.abort();
    await served;
    await server.close();
  });

  it('gives all bytes in order to a slow reader', async () => {
    const port = new FakePort();
    port.hostConnects();
    const sent = Buffer.alloc(400_000, 1);
    for (let at = 0; at < sent.length; at += 7) sent[at] = at & 0xff;
    const received: Buffer[] = [];
    const stop = new AbortController();
    const done = new Promise<void>((resolve) => {
      const served = servePort(
        port,
        async (stream) => {
          let length = 0;
          for await (const chunk of stream) {
            received.push(chunk);
            length += chunk.length;
            await new Promise((next) => setImmediate(next));
            if (length === sent.length) {
              stop.abort();
              port.hostLeaves();
            }
          }
        },
        stop.signal,
      );
      void served.then(resolve);
    });
    port.hostSends(sent);
    await done;
    expect(Buffer.concat(received).equals(sent)).toBe(true);
  });

  it('rejects where the port fails', async () => {
    const broken: PortFile = {
      read: () => Promise.reject(Object.assign(new Error('gone'), { code: 'ENODEV' })),
      write: () => Promise.reject(new Error('gone')),
    };
    await expect(servePort(broken, () => undefined)).rejects.toThrow('gone');
  });

  it('finds the port by its name', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'sealpod-ports-'));
    try {
      for (const [port, name] of [
        ['vport1p1', 'org.other.0'],
        ['vport1p2', 'sealpod.agent.0'],
      ] as const) {
        mkdirSync(join(directory, 'ports', port), { recursive: true });
        writeFileSync(join(directory, 'ports', port, 'name'), `${name}\n`);
        writeFileSync(join(directory, port), `bytes of ${port}`);
      }
      const port = await openVirtioPort('sealpod.agent.0', join(directory, 'ports'), directory);
      const buffer = Buffer.alloc(64);
      expect(buffer.subarray(0, await port.read(buffer)).toString()).toBe('bytes of vport1p2');
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
});
