import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { IpProgram } from './ip-program.ts';

describe('the ip program', () => {
  let folder: string;
  let program: IpProgram;
  /** A program that notes its start, and then is the real one. */
  const noted = (script = 'exec "$@"') => ['sh', '-c', `echo >> "$0"; ${script}`, join(folder, 'starts')];
  const starts = () => readFileSync(join(folder, 'starts'), 'utf8').length;
  const loopback = ['link', 'show', 'dev', 'lo'];
  const nobody = ['link', 'set', 'dev', 'nobody', 'up'];

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'sealpod-ip-'));
  });
  afterEach(() => {
    program.close();
    rmSync(folder, { recursive: true });
  });

  it('is started once for all commands, which take turns', async () => {
    program = new IpProgram(noted());
    const shown = await Promise.all([program.run([loopback]), program.run([loopback, ['route', 'show']])]);
    expect(JSON.parse(shown[0])).toMatchObject([{ ifname: 'lo' }]);
    await program.run([loopback]);
    expect(starts()).toBe(1);
  });

  it('names the command that failed, and is started anew for the next', async () => {
    program = new IpProgram(noted());
    await program.run([loopback]);
    const raised = ['link', 'set', 'dev', 'lo', 'up'];
    await expect(program.run([raised, nobody, loopback])).rejects.toMatchObject({
      code: 'INTERNAL',
      message: expect.stringMatching(/^ip link set dev nobody up: .*Cannot find device "nobody"/s),
    });
    expect(JSON.parse(await program.run([loopback]))).toMatchObject([{ ifname: 'lo' }]);
    expect(starts()).toBe(2);
  });

  it.each([
    ['is not there', () => [join(folder, 'missing')], /ENOENT/],
    ['ends at once', () => noted('exit 3'), /ended with 3/],
    ['is killed', () => noted('kill -9 $$'), /ended with SIGKILL/],
    ['prints without end', () => noted('exec tr "\\0" a < /dev/zero'), /prints more than 4194304 bytes/],
  ])('tells where it %s', async (_, prefix, said) => {
    program = new IpProgram(prefix());
    await expect(program.run([loopback])).rejects.toThrow(said);
  });
});
