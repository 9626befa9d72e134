import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { SandboxStatus } from '@sealpod/protocol/status';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { clusterObstacle, ownClusterObstacle, skipped } from './access.ts';
import { TestCluster, type TestPod } from './test-cluster.ts';
import { startWebhook } from './webhook-process.ts';

const obstacle = clusterObstacle() ?? ownClusterObstacle();
const secret = 'default/observe/greeting';
const resource = 'sealpod.io/vm';

interface PodEvent {
  readonly type: string;
  readonly reason: string;
  readonly note: string;
  readonly eventTime: string | null;
  readonly reportingController?: string;
  readonly series?: { readonly count: number };
  readonly regarding: { readonly name: string };
  readonly metadata: { readonly annotations?: Readonly<Record<string, string>> };
}

/** Which VM an event is about. */
function sandboxOf({ metadata }: PodEvent): string {
  return (JSON.parse(metadata.annotations?.['sealpod.io/start'] ?? '{}') as { sandboxId?: string }).sandboxId ?? '';
}

interface Status extends SandboxStatus {
  readonly verdict: { readonly outcome: string; readonly released?: number };
}

describe.skipIf(obstacle !== undefined)(`what one sees of pods on Kubernetes${skipped(obstacle)}`, () => {
  const test = new TestCluster();
  let stopWebhook: (() => Promise<void>) | undefined;
  let other: string;
  let observed: TestPod;

  beforeAll(async () => {
    await test.start('--machines', '2');
    stopWebhook = await startWebhook(test, { extendedResource: resource });
    other = await test.pushBusybox('tests/other', 'not in the image policy');
    observed = {
      name: 'observed',
      allowExec: false,
      allowedImages: [test.image],
      containers: [
        {
          name: 'main',
          command: [
            '/bin/sh',
            '-c',
            `wget -qO /tmp/greeting http://127.0.0.1:8006/cdh/resource/${secret} && touch /tmp/got; while :; do sleep 1; done`,
          ],
        },
        { name: 'refused', image: other, command: ['/bin/true'] },
      ],
    };
    const stored = await test.sealpodWithInput('hello', 'secret', 'put', secret, '--file', '-');
    if (stored.code !== 0) throw new Error(stored.stderr);
    const digest = createHash('sha256').update(test.initdata(observed)).digest('hex');
    await test.json('refvalue', 'put', 'tpm_initdata', digest);
    await test.apply(test.pod(observed));
  }, 1_200_000);
  afterAll(async () => {
    await stopWebhook?.();
    await test.sealpod('cluster', 'down');
    await test.remove();
    expect(test.residue()).toEqual([]);
  }, 300_000);

  const eventsOf = async (pod: string): Promise<PodEvent[]> => {
    const { items } = await test.get('events.events.k8s.io', '--field-selector', `regarding.name=${pod}`);
    return items as PodEvent[];
  };
  const ours = async (pod: string): Promise<PodEvent[]> =>
    (await eventsOf(pod))
      .filter(({ reportingController }) => reportingController === 'sealpod.io/node-agent')
      .toSorted((one, another) => String(one.eventTime).localeCompare(String(another.eventTime)));
  const until = async <T>(what: string, look: () => Promise<T | undefined>): Promise<T> => {
    const deadline = Date.now() + 580_000;
    for (;;) {
      const found = await look();
      if (found !== undefined) return found;
      if (Date.now() > deadline) throw new Error(`not seen: ${what}`);
      await delay(1000);
    }
  };

  it('tells each stage of a start as an event of the pod, in its order and with its duration', async () => {
    const started = await until('the container of the pod starts', async () =>
      (await ours('observed')).find(({ reason }) => reason === 'VMContainerStarted'),
    );
    const attested = await until('the guest attests', async () =>
      (await ours('observed')).find(({ reason }) => reason === 'VMAttested'),
    );
    // A sandbox that was too slow, and was made again, has events of its own.
    const events = (await ours('observed')).filter(
      (event) => event.type === 'Normal' && sandboxOf(event) === sandboxOf(started),
    );
    expect(events.map(({ reason }) => reason)).toEqual([
      'VMCreated',
      'VMBooted',
      'VMNetworkReady',
      'VMImagePulled',
      'VMContainerStarted',
      'VMAttested',
    ]);
    for (const { note } of events) expect(note).toMatch(/took \d+\.\d+ s/);
    expect(events[0]?.note).toMatch(/image default sha256:[0-9a-f]{64}/);
    expect(events[1]?.note).toMatch(/\(firmware .* s, kernel .* s, init .* s, agent .* s\)/);
    expect(attested.note).toMatch(/Correlation id [0-9a-f-]{36} \(sealpod explain/);
  }, 600_000);

  it('tells a refusal of the guest with its reason code, what to do, and how often', async () => {
    const refusal = await until('the image is refused', async () =>
      (await ours('observed')).find(({ note }) => note.startsWith('IMG_POLICY_DENY')),
    );
    expect(refusal).toMatchObject({ type: 'Warning', reason: 'VMRefused' });
    expect(refusal.note).toMatch(/^IMG_POLICY_DENY \(container refused\): .*To do: pin the image by digest/);
    const denied = await test.kubectl('exec', 'observed', '-c', 'main', '--', 'cat', '/tmp/greeting');
    expect(denied.code).not.toBe(0);
    await until('the exec is refused', async () =>
      (await ours('observed')).find(({ note }) => note.startsWith('AGENT_POLICY_DENY')),
    );
    // kubelet tries again, and the event is counted.
    await until('the refusal again', async () =>
      (await ours('observed')).find(
        ({ note, series }) => note.startsWith('IMG_POLICY_DENY') && (series?.count ?? 1) > 1,
      ),
    );
  }, 600_000);

  it.each([
    ['the adaptor', []],
    ['the events of the cluster', ['--kubeconfig']],
  ])('sealpod status --pods tells VM, image, verdict and cost by stage, from %s', async (_from, option) => {
    const options = option.flatMap((name) => [name, test.cluster.kubeconfig]);
    const found = await until('the release', async () => {
      const { pods } = (await test.json('status', '--pods', '--namespace', 'default', ...options)) as {
        pods: Status[];
      };
      return pods.find(({ pod, verdict }) => pod.name === 'observed' && verdict.released === 1);
    });
    expect(found).toMatchObject({
      pod: { namespace: 'default', name: 'observed' },
      state: 'running',
      vm: { vcpus: 1, memoryMiB: 512, image: { name: 'default', digest: expect.stringMatching(/^sha256:/) } },
      verdict: { outcome: 'OK' },
      correlationId: expect.stringMatching(/^[0-9a-f-]{36}$/),
    });
    const named = found.stages.filter(({ durationMs }) => durationMs !== undefined).map(({ stage }) => stage);
    for (const stage of ['network', 'creating-vm', 'booting', 'attesting', 'pulling', 'starting'])
      expect(named).toContain(stage);
    const table = await test.sealpod('status', '--pods', ...options);
    expect(table.code, table.stderr).toBe(0);
    expect(table.stdout).toMatch(/default\/observed +running +podvm-observed-/);
  });

  it('sealpod explain takes the name of a pod', async () => {
    const { kubeconfig } = test.cluster;
    const explained = await test.sealpod('explain', 'default/observed', '--kubeconfig', kubeconfig);
    expect(explained.code, explained.stderr).toBe(0);
    expect(explained.stdout).toContain('default/observed');
    expect(explained.stdout).toMatch(/resource default\/observe\/greeting: OK/);
    const unknown = await test.sealpod('explain', 'default/nobody', '--kubeconfig', kubeconfig);
    expect(unknown.stderr).toContain('NOT_FOUND');
  });

  it('leaves a pod beyond the capacity of the node Pending, with the resource by name, until one goes', async () => {
    const waiting = ['/bin/sh', '-c', 'while :; do sleep 1; done'];
    const more = (name: string): object => test.pod({ name, containers: [{ name: 'main', command: waiting }] });
    await test.apply(more('second'));
    await test.waitFor('condition=PodScheduled', 'pod/second');
    await test.apply(more('third'));
    const event = await until('the third is not scheduled', async () =>
      (await eventsOf('third')).find(({ reason }) => reason === 'FailedScheduling'),
    );
    expect(event.note).toContain(`Insufficient ${resource}`);
    const { status } = (await test.get('pod', 'third')) as { status: { phase: string } };
    expect(status.phase).toBe('Pending');
    await test.ok('delete', 'pod', 'second', '--wait', '--timeout=120s');
    await test.waitFor('condition=PodScheduled', 'pod/third');
  }, 600_000);
});
