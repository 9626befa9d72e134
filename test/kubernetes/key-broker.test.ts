import { createPrivateKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { KbsClient } from '@sealpod/kbs-client';
import { signAdminToken } from '@sealpod/kbs-client/token';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { killPart, startKeyBrokerAgain } from '../chaos/parts.ts';
import { clusterObstacle, nodeObstacle, skipped } from './access.ts';
import { TestCluster } from './test-cluster.ts';

/*
 * Pods whose image is encrypted, and a key broker that does not give its key, or not yet: the pod's events say why, in the
 * words of reason codes, and the pod starts as soon as it may.
 */

const obstacle = clusterObstacle() ?? nodeObstacle();
const message = 'only an attested guest reads this';
const denyAll = 'package policy\n\nimport rego.v1\n\ndefault allow := false\n';
const affirming = `package policy

import rego.v1

default allow := false

allow if {
	count(input.submods) > 0
	every submod in input.submods {
		submod["ear.status"] == "affirming"
	}
}
`;

interface Decision {
  readonly kind: string;
  readonly outcome: string;
  readonly resource?: { readonly path: string };
}

describe.skipIf(obstacle !== undefined)(`encrypted images and the key broker${skipped(obstacle)}`, () => {
  const cluster = new TestCluster();

  /** A pod of an image that is encrypted for it; its guest is enrolled. */
  const encrypted = async (name: string, ...options: readonly string[]): Promise<readonly object[]> => {
    await encrypt(name, ...options);
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name },
      spec: {
        runtimeClassName: 'sealpod',
        terminationGracePeriodSeconds: 0,
        containers: [
          {
            name: 'main',
            image: await cluster.resolve(`sealed/${name}:1`),
            command: ['/bin/sh', '-c', 'cat /message; exec sleep 3600'],
          },
        ],
      },
    };
    return sealed(pod);
  };
  const encrypt = async (name: string, ...options: readonly string[]): Promise<void> => {
    const key = `default/image-key/${name}`;
    await cluster.json('image', 'encrypt', 'plain/hello:1', `sealed/${name}:1`, '--key', key, ...options);
  };
  const sealed = async (pod: object): Promise<readonly object[]> => {
    const { objects, digests } = await cluster.seal([pod]);
    await cluster.enrol(...Object.values(digests));
    return objects;
  };
  /** What the key broker has decided so far, newest first. */
  const decisions = async (): Promise<readonly Decision[]> => {
    const privateKey = createPrivateKey(readFileSync(join(cluster.home, 'owner-key.pem')));
    const { url, certificateFile } = cluster.keyBroker;
    const client = new KbsClient({
      url,
      certificatePem: readFileSync(certificateFile, 'utf8'),
      token: () => signAdminToken({ privateKey, role: 'owner', subject: 'test', ttlSeconds: 60 }),
    });
    return ((await client.get('/admin/v1/decisions?limit=1000')) as { decisions: readonly Decision[] }).decisions;
  };
  const expectMessage = (pod: string): Promise<void> =>
    expect.poll(() => cluster.ok('logs', pod), { timeout: 60_000, interval: 500 }).toBe(`${message}\n`);

  beforeAll(async () => {
    await cluster.start();
    await cluster.json('image', 'demo', 'plain/hello:1', '--message', message);
    for (const id of ['nobody', 'at-first-nobody'])
      await cluster.json('policy', 'put', 'resource', id, '--file', cluster.file(`${id}.rego`, denyAll));
  });
  afterAll(async () => {
    if (cluster.running)
      await cluster.kubectl('delete', 'pod/denied', 'pod/wrong-key', 'pod/away', '--wait=false', '--ignore-not-found');
    await cluster.stop();
  });

  it('a policy that denies all: POLICY_DENY, recorded with the policy; it starts once the policy allows it', async () => {
    await cluster.apply(...(await encrypted('denied', '--policy', 'nobody')));
    const events = await cluster.told('denied', /POLICY_DENY/);
    expect(events).toMatch(/sealpod explain [0-9a-f-]{16,}/);
    const decisions = (await cluster.json('explain', '--last', '--all')) as readonly {
      readonly outcome: string;
      readonly policy?: { readonly id: string };
    }[];
    expect(decisions.find(({ outcome }) => outcome === 'POLICY_DENY')?.policy).toMatchObject({ id: 'nobody' });
    await cluster.json('policy', 'put', 'resource', 'nobody', '--file', cluster.file('some.rego', affirming));
    await cluster.waitFor('condition=Ready', 'pod/denied');
    await expectMessage('denied');
    await cluster.delete('pod/denied');
  });

  it('a pod attests once: its four containers, of encrypted images with two keys, share one evidence', async () => {
    await encrypt('one');
    await encrypt('two');
    const before = (await decisions()).length;
    const container = async (name: string, image: string, script: string, more: object = {}) => ({
      ...{ name, image: await cluster.resolve(`sealed/${image}:1`), command: ['/bin/sh', '-c', script] },
      ...more,
    });
    const stays = 'cat /message; exec sleep 3600';
    await cluster.apply(
      ...(await sealed({
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: 'four' },
        spec: {
          runtimeClassName: 'sealpod',
          terminationGracePeriodSeconds: 0,
          initContainers: [
            await container('prepare', 'one', 'cat /message'),
            await container('sidecar', 'two', stays, { restartPolicy: 'Always' }),
          ],
          containers: [await container('web', 'one', stays), await container('worker', 'two', stays)],
        },
      })),
    );
    await cluster.waitFor('condition=Ready', 'pod/four');
    const after = await decisions();
    const made = after.slice(0, after.length - before);
    const granted = made.filter(({ outcome }) => outcome === 'OK');
    expect(granted.filter(({ kind }) => kind === 'attest')).toHaveLength(1);
    const keys = granted.filter(({ kind }) => kind === 'resource').map(({ resource }) => resource?.path);
    expect(new Set(keys)).toEqual(new Set(['default/image-key/one', 'default/image-key/two']));
    expect(await cluster.ok('logs', 'four', '--all-containers')).toBe(`${message}\n`.repeat(4));
    await cluster.delete('pod/four');
  });

  it('a wrong key: IMG_DECRYPT_KEY, and no container runs', async () => {
    const objects = await encrypted('wrong-key');
    const put = ['secret', 'put', 'default/image-key/wrong-key', '--file', '-'];
    expect((await cluster.sealpodWithInput('x'.repeat(32), ...put)).code).toBe(0);
    await cluster.apply(...objects);
    await cluster.told('wrong-key', /IMG_DECRYPT_KEY/);
    const { status } = (await cluster.get('pod', 'wrong-key')) as {
      status: { containerStatuses: readonly { started?: boolean; containerID?: string }[] };
    };
    expect(status.containerStatuses.map(({ started }) => started)).toEqual([false]);
    await cluster.delete('pod/wrong-key');
  });

  it('a key broker that is away: KBS_UNREACHABLE; the pod starts when it is back', async () => {
    const objects = await encrypted('away');
    await killPart(cluster, 'kbs');
    try {
      await cluster.apply(...objects);
      await cluster.told('away', /KBS_UNREACHABLE/);
    } finally {
      await startKeyBrokerAgain(cluster);
    }
    await cluster.waitFor('condition=Ready', 'pod/away');
    await expectMessage('away');
    await cluster.delete('pod/away');
  });
});
