import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { bytesOf, field, map, message, numberOf, RawCaller } from './wire.ts';

/*
 * Frames of a Kata shim with a remote hypervisor, by hand, against the real adaptor program with a machine that is a process:
 * hypervisor.Hypervisor (CreateVMRequest{id=1, annotations=2, networkNamespacePath=3} → {agentSocketPath=1}; StartVM, StopVM
 * {id=1} → {}; Version{version=1} → {version=1}), then the agent's Health through the adaptor's relay.
 */

const id = 'f00dfeed'.repeat(8);
const service = 'hypervisor.Hypervisor';
const empty = '0a00';
const prefix = 'io.katacontainers.config.hypervisor.';
const rooms = fileURLToPath(new URL('../../peer-pods/adaptor/', import.meta.url));

let folder: string;
let adaptor: ChildProcess | undefined;
let caller: RawCaller | undefined;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sp-g-'));
  const config = join(folder, 'config.json');
  writeFileSync(
    config,
    JSON.stringify({
      socket: join(folder, 'hypervisor.sock'),
      podsDirectory: join(folder, 'pods'),
      stateDirectory: join(folder, 'state'),
      provider: { name: 'module', path: join(rooms, 'provider-for-tests.ts') },
    }),
  );
  const child = spawn(process.execPath, [join(rooms, 'main.ts'), '--config', config], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  adaptor = child;
  const lines: string[] = [];
  createInterface({ input: child.stderr }).on('line', (line) => lines.push(line));
  await vi.waitFor(() => expect(lines.join('\n')).toContain('"serving"'), { timeout: 30_000 });
  caller = await RawCaller.connect(join(folder, 'hypervisor.sock'));
});
afterAll(async () => {
  caller?.close();
  if (adaptor !== undefined && adaptor.exitCode === null) {
    adaptor.kill('SIGTERM');
    await once(adaptor, 'exit');
  }
  rmSync(folder, { recursive: true, force: true });
});

async function ask(
  method: string,
  payload: Uint8Array,
  on: RawCaller | undefined = caller,
  of = service,
): Promise<Buffer> {
  if (on === undefined) throw new Error('no connection');
  const answer = await on.call(of, method, payload);
  expect({ type: answer.type, flags: answer.flags }).toEqual({ type: 2, flags: 0 });
  return answer.body;
}

it('Version answers what nobody asks for: 0.0.0', async () => {
  expect((await ask('Version', field(1, '0.0.0'))).toString('hex')).toBe('0a0012070a05302e302e30');
});

it('CreateVM as both shims send it, StartVM, the agent behind it, StopVM', async () => {
  const annotations = {
    'io.kubernetes.cri.sandbox-name': 'web-0',
    'io.kubernetes.cri.sandbox-namespace': 'default',
    // Each shim sends all of them, empty or zero where the pod says nothing.
    [`${prefix}machine_type`]: '',
    [`${prefix}image`]: '',
    [`${prefix}default_vcpus`]: '0',
    [`${prefix}default_memory`]: '0',
    [`${prefix}default_gpus`]: '0',
    [`${prefix}default_gpu_model`]: '',
    [`${prefix}cc_init_data`]: '',
  };
  const created = await ask('CreateVM', message(field(1, id), map(2, annotations)));
  const socket = join(folder, 'pods', id, 'agent.ttrpc');
  expect(created.toString('hex')).toBe(message(field(1), field(2, field(1, socket))).toString('hex'));
  // The same once more, after an answer that was lost, in another order: a map has none.
  const reversed = Object.fromEntries(Object.entries(annotations).reverse());
  expect((await ask('CreateVM', message(field(1, id), map(2, reversed)))).equals(created)).toBe(true);
  expect((await ask('StartVM', field(1, id))).toString('hex')).toBe(empty);
  const agent = await RawCaller.connect(socket);
  try {
    expect((await ask('Check', Buffer.alloc(0), agent, 'grpc.Health')).toString('hex')).toBe('0a0012020801');
  } finally {
    agent.close();
  }
  expect((await ask('StopVM', field(1, id))).toString('hex')).toBe(empty);
  expect((await ask('StopVM', field(1, id))).toString('hex')).toBe(empty);
});

it('a machine that was never created is refused by a status with words', async () => {
  const status = bytesOf(await ask('StartVM', field(1, 'b'.repeat(64))), 1);
  expect(numberOf(status, 1)).not.toBe(0n);
  expect(bytesOf(status, 2).toString()).toContain('b'.repeat(64));
});
