import { globSync } from 'node:fs';
import { join } from 'node:path';
import { runningProcesses } from '@sealpod/processes';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { TestEnvironment } from './environment.ts';
import { eventually, Started } from './started.ts';

const environment = new TestEnvironment();
let started: Started | undefined;

function start(...args: readonly string[]): Started {
  started = new Started(environment, ...args);
  return started;
}

const machineRuns = (): boolean =>
  runningProcesses().some(
    ({ arguments: words }) =>
      words[0] === 'qemu-system-x86_64' && words.some((word) => word.includes(`@${environment.runDirectory}/pods/`)),
  );

afterEach(async () => {
  started?.signalGroup('SIGKILL');
  await started?.ended();
});

afterAll(() => environment.remove());

describe('npm start', () => {
  it('Ctrl-C while the image is built ends everything, and exits 130', async () => {
    const run = start('--once');
    await run.printed('key broker');
    await eventually(
      'a build under way',
      () => globSync(join(environment.home, 'pod-vm-images/default/build-*/*')).length > 0,
    );
    run.signalGroup('SIGINT');
    expect(await run.ended(30_000), run.text).toBe(130);
    expect(globSync(join(environment.home, 'pod-vm-images/*/build-*'))).toEqual([]);
    expect(environment.residue()).toEqual([]);
  });

  it('--once shows both acts, exits 0 and leaves nothing; twice in a row', async () => {
    for (const attempt of [1, 2]) {
      const run = start('--once');
      expect(await run.ended(), `attempt ${attempt}:\n${run.text}`).toBe(0);
      expect(run.text).toContain('the container says: this text was encrypted until a measured machine proved itself');
      expect(run.text).toContain('refused with POLICY_DENY, as it must be');
      expect(run.text).toContain('NOT command line: RV_MISMATCH');
      expect(environment.residue()).toEqual([]);
    }
  });

  it('Ctrl-C while a machine boots ends everything, and exits 130', async () => {
    const run = start();
    await eventually('a machine', machineRuns);
    run.signalGroup('SIGINT');
    expect(await run.ended(60_000), run.text).toBe(130);
    expect(run.text).not.toMatch(/error|act 2/);
    expect(environment.residue()).toEqual([]);
  });

  it('Ctrl-C while it idles ends everything, and exits 130; a second Ctrl-C does not cut the end short', async () => {
    const run = start('--no-demonstration');
    await run.printed('the environment runs');
    expect((await environment.sealpod('status')).code).toBe(0);
    run.signalGroup('SIGINT');
    run.signalGroup('SIGINT');
    expect(await run.ended(30_000), run.text).toBe(130);
    expect(environment.residue()).toEqual([]);
  });

  it('SIGTERM and SIGHUP end everything too', async () => {
    for (const signal of ['SIGTERM', 'SIGHUP'] as const) {
      const run = start('--no-demonstration');
      await run.printed('adaptor');
      run.signalGroup(signal);
      expect(await run.ended(30_000), run.text).toBe(130);
      expect(environment.residue()).toEqual([]);
    }
  });

  it('wrong use starts nothing, and exits 2', async () => {
    const run = start('--no-demonstration', '--nonsense');
    expect(await run.ended(30_000)).toBe(2);
    expect(run.text).toContain("unknown option '--nonsense'");
    expect(environment.residue()).toEqual([]);
  });
});
