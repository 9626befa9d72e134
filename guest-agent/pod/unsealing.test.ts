import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { Status } from '@sealpod/protocol/ttrpc';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  allowAll,
  cannotRunContainers,
  containerRequest,
  type PodFixture,
  readAll,
  startPod,
} from './testing/pod-fixture.ts';

const reason = cannotRunContainers();
const folder = 0o040755;
const file = 0o100640;
const link = 0o120777;

describe(`K-10: sealed files of a volume${reason ? ` (containers skipped: ${reason})` : ''}`, () => {
  let pod: PodFixture;
  let volume: string;
  beforeEach(async () => {
    const secrets: Readonly<Record<string, Buffer>> = {
      'sealed.header.password.signature': Buffer.from('correct horse'),
      'sealed.header.renewed.signature': Buffer.from('battery staple'),
      'sealed.header.binary.signature': Buffer.from([0, 255, 254, 10]),
      'sealed.header.twice.signature': Buffer.from('sealed.inner'),
      'sealed.header.empty.signature': Buffer.alloc(0),
    };
    pod = await startPod(allowAll, {
      dataHub: {
        async unseal(secret) {
          const found = secrets[secret];
          if (found === undefined) throw new SealpodError('EV_SIGNATURE', 'the signature does not verify');
          return found;
        },
      },
    });
    await pod.agent.createSandbox({});
    volume = join(pod.root, 'shared/containers/app-0123456789abcdef-cred');
    await put('', folder);
    await put('/..1', folder);
  });
  afterEach(() => pod.close());

  const put = (path: string, fileMode: number, text: string | Buffer = '', more: object = {}) => {
    const data = Buffer.from(text);
    const size = (fileMode & 0o170000) === 0o100000 ? BigInt(data.length) : 0n;
    const owner = { dirMode: 0o750, uid: 0, gid: 0, offset: 0n };
    return pod.agent.copyFile({ path: volume + path, fileMode, fileSize: size, data, ...owner, ...more });
  };

  it('are opened as they come, with their mode, and all others stay as they are', async () => {
    await put('/..1/password', file, 'sealed.header.password.signature');
    await put('/..1/line', file, 'sealed.header.password.signature\n');
    await put('/..1/binary', file, 'sealed.header.binary.signature');
    await put('/..1/empty', file, 'sealed.header.empty.signature');
    await put('/..1/plain', file, 'not sealed.header.password.signature');
    const read = (name: string) => readFileSync(`${volume}/..1/${name}`);
    expect(read('password').toString()).toBe('correct horse');
    expect(read('line').toString()).toBe('correct horse');
    expect(read('binary')).toEqual(Buffer.from([0, 255, 254, 10]));
    expect(read('empty')).toHaveLength(0);
    expect(read('plain').toString()).toBe('not sealed.header.password.signature');
    // The name of a link is no content.
    await put('/link', link, 'sealed.header.password.signature');
  });

  it('that nobody can open fail the copy by reason, and nothing is shown in their place', async () => {
    await expect(put('/..1/forged', file, 'sealed.header.forged.signature')).rejects.toThrow('EV_SIGNATURE');
    await expect(put('/..1/twice', file, 'sealed.header.twice.signature')).rejects.toMatchObject({
      status: Status.invalidArgument,
    });
    const other = await startPod(allowAll);
    try {
      await other.agent.createSandbox({});
      const path = join(other.root, 'shared/containers/x-0123456789abcdef-cred');
      const data = Buffer.from('sealed.header.password.signature');
      await expect(
        other.agent.copyFile({ path, fileMode: file, dirMode: 0o750, fileSize: BigInt(data.length), data }),
      ).rejects.toMatchObject({ status: Status.unimplemented });
    } finally {
      await other.close();
    }
    expect(readdirSync(`${volume}/..1`)).toEqual([]);
  });

  it.each([3, 10])('cannot be slipped past in pieces (%i bytes first)', async (cut) => {
    const text = 'sealed.header.password.signature';
    const whole = { fileSize: BigInt(text.length) };
    await put('/..1/password', file, text.slice(0, cut), whole);
    await expect(put('/..1/password', file, text.slice(cut), { ...whole, offset: BigInt(cut) })).rejects.toMatchObject({
      status: Status.invalidArgument,
    });
    expect(existsSync(`${volume}/..1/password`)).toBe(false);
  });

  it.skipIf(reason !== undefined)('reach a program as plain files, also after an update of the Secret', async () => {
    await put('/..1/password', file, 'sealed.header.password.signature');
    await put('/..data', link, '..1');
    await put('/password', link, '..data/password');
    const id = 'app';
    const request = containerRequest(pod.root, {
      id,
      args: ['sh', '-c', 'cat /cred/password; echo; read go; cat /cred/password'],
    });
    const bind = containerRequest(pod.root, {
      id,
      args: [],
      spec: { Mounts: [{ destination: '/cred', type: 'bind', source: volume, options: ['rbind', 'rprivate', 'ro'] }] },
    });
    request.OCI.Mounts.push(...bind.OCI.Mounts);
    await pod.agent.createContainer(request);
    await pod.agent.startContainer({ containerId: id });
    const read = (len: number) => pod.agent.readStdout({ containerId: id, execId: '', len });
    // The update must not come before the program has read what was there first.
    let first = '';
    while (!first.endsWith('\n')) first += Buffer.from((await read(4096)).data).toString();
    expect(first).toBe('correct horse\n');
    await put('/..2', folder);
    await put('/..2/password', file, 'sealed.header.renewed.signature');
    await put('/..data', link, '..2');
    await pod.agent.writeStdin({ containerId: id, execId: '', data: Buffer.from('go\n') });
    expect(await readAll(read)).toBe('battery staple');
  });
});
