import { type ChildProcess, spawn } from 'node:child_process';
import { afterEach, expect, test } from 'vitest';
import { shimsOf } from './shims.ts';

const started: ChildProcess[] = [];
afterEach(() => {
  for (const child of started.splice(0)) child.kill('SIGKILL');
});

const socket = `/run/${process.pid}/containerd.sock`;
/** A process with these words on its command line, which ends by itself. */
const start = async (...words: readonly string[]): Promise<number> => {
  const child = spawn(process.execPath, ['-e', 'console.log(); setTimeout(() => {}, 60000)', '--', ...words]);
  started.push(child);
  await new Promise((resolve) => child.stdout.once('data', resolve));
  return child.pid ?? Number.NaN;
};

test('shims are those that name the socket as the address of their containerd', async () => {
  const ours = await start('serve', '-id', 'pod', '-namespace', 'k8s.io', '-address', socket, '-socket', '/run/s');
  await start('-namespace', 'k8s.io', '-id', 'pod', '-address', `${socket}.other`);
  await start('--config', '/etc/containerd.toml', socket);
  expect(shimsOf(socket).map(({ pid }) => pid)).toEqual([ours]);
});
