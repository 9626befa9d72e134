import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { basename } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { commandLineOf, endProcess, findProcesses, identityOf, isRunning } from './identity.ts';

const executable = basename(process.execPath);
const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

/** A process that says when it is up, with `marker` among its arguments. */
async function processWith(marker: string, script = ''): Promise<{ pid: number; child: ChildProcess }> {
  const child = spawn(process.execPath, ['-e', `${script};console.log('up');setInterval(() => {}, 1000)`, marker], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  children.push(child);
  await once(child.stdout, 'data');
  return { pid: child.pid ?? 0, child };
}

const unique = () => `/pods/${process.pid}-${Math.random()}/`;

it('finds a process by program and argument, and only while it runs', async () => {
  const marker = unique();
  const { pid, child } = await processWith(marker);
  const [found] = findProcesses({ executable, marker });
  expect(found).toEqual(identityOf(pid));
  expect(commandLineOf(pid)).toContain(marker);
  expect(findProcesses({ executable: 'qemu-system-x86_64', marker })).toEqual([]);
  if (!found) throw new Error('not found');
  child.kill('SIGKILL');
  await once(child, 'exit');
  expect(isRunning(found)).toBe(false);
  expect(identityOf(pid)).toBeUndefined();
  expect(findProcesses({ executable, marker })).toEqual([]);
});

it('ends a process, with force where it must', async () => {
  const marker = unique();
  const mild = await processWith(marker);
  const stubborn = await processWith(marker, "process.on('SIGTERM', () => {})");
  for (const { pid, child } of [mild, stubborn]) {
    const identity = identityOf(pid);
    if (!identity) throw new Error('not running');
    const exited = once(child, 'exit');
    await endProcess(identity, { executable, marker }, 200);
    expect(await exited).toEqual([null, child === mild.child ? 'SIGTERM' : 'SIGKILL']);
  }
});

it('never signals a process that took over the number, or is another program', async () => {
  const marker = unique();
  const { pid, child } = await processWith(marker);
  const identity = identityOf(pid);
  if (!identity) throw new Error('not running');
  await endProcess({ pid, startTime: String(Number(identity.startTime) - 1) }, { executable, marker }, 100);
  await endProcess(identity, { executable, marker: unique() }, 100);
  await endProcess(identity, { executable: 'swtpm', marker }, 100);
  expect(isRunning(identity)).toBe(true);
  expect(child.exitCode).toBeNull();
});
