import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { clusterObstacle, skipped } from './access.ts';
import { TestCluster } from './test-cluster.ts';

/*
 * Policies that `sealpod policy generate` makes from plain manifests, on pods of a real cluster: they run as written, and a
 * cluster administrator who asks for anything else is refused by the guest, which says by which rule.
 */

const obstacle = clusterObstacle();
const waiting = ['/bin/sh', '-c', 'trap "exit 0" TERM; while :; do sleep 1; done'];

interface Container {
  name: string;
  image: string;
  command: string[];
  env?: { name: string; value: string }[];
  [field: string]: unknown;
}

interface Pod {
  metadata: { name: string; namespace?: string; [field: string]: unknown };
  spec: { initContainers?: Container[]; containers: Container[]; [field: string]: unknown };
}

describe.skipIf(obstacle !== undefined)(`generated policies on Kubernetes${skipped(obstacle)}`, () => {
  const cluster = new TestCluster();
  let otherImage = '';

  const settings = (mode: string) => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'application' },
    data: { mode },
  });
  /** As its owner wrote it: nothing in it speaks of machines but the RuntimeClass. */
  const guarded = () => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'guarded' },
    spec: {
      runtimeClassName: 'sealpod',
      terminationGracePeriodSeconds: 2,
      volumes: [
        { name: 'application', configMap: { name: 'application' } },
        { name: 'scratch', emptyDir: {} },
      ],
      initContainers: [
        {
          name: 'prepare',
          image: cluster.image,
          command: ['/bin/sh', '-c', 'cp /application/mode /scratch/mode'],
          volumeMounts: [
            { name: 'application', mountPath: '/application' },
            { name: 'scratch', mountPath: '/scratch' },
          ],
        },
      ],
      containers: [
        {
          name: 'main',
          image: cluster.image,
          command: [
            '/bin/sh',
            '-c',
            'echo "mode $(cat /scratch/mode), level $LEVEL"; grep -E "^Seccomp:" /proc/self/status; while :; do sleep 1; done',
          ],
          env: [{ name: 'LEVEL', value: 'high' }],
          volumeMounts: [{ name: 'scratch', mountPath: '/scratch' }],
          readinessProbe: { exec: { command: ['test', '-e', '/scratch/mode'] }, periodSeconds: 2, timeoutSeconds: 20 },
          securityContext: {
            runAsUser: 1000,
            runAsGroup: 1000,
            allowPrivilegeEscalation: false,
            capabilities: { drop: ['ALL'] },
            seccompProfile: { type: 'RuntimeDefault' },
          },
        },
      ],
    },
  });

  /** What an administrator of the cluster makes of the sealed manifest, each in a namespace of its own. */
  const changes: Readonly<Record<string, (pod: Pod) => void>> = {
    command: (pod) => {
      pod.spec.containers[0]?.command.push('changed');
    },
    variable: (pod) => {
      pod.spec.containers[0]?.env?.push({ name: 'LD_PRELOAD', value: '/scratch/x.so' });
    },
    user: (pod) => {
      Object.assign(pod.spec.containers[0] ?? {}, { securityContext: { runAsUser: 0 } });
    },
    image: (pod) => {
      Object.assign(pod.spec.containers[0] ?? {}, { image: otherImage });
    },
    dropped: (pod) => {
      delete pod.spec.initContainers;
    },
    added: (pod) => {
      pod.spec.containers.push({ name: 'spy', image: cluster.image, command: waiting });
    },
    configuration: () => undefined,
  };

  beforeAll(async () => {
    await cluster.start();
    otherImage = await cluster.pushBusybox('tests/busybox', 'another');
    const { objects } = await cluster.seal([settings('fast'), guarded()]);
    await cluster.apply(...objects);
    await cluster.waitFor('condition=Ready', 'pod/guarded');
    const sealed = objects.find((object) => (object as { kind: string }).kind === 'Pod') as Pod;
    // All at once: each takes a machine, and waits for nothing but its refusal.
    for (const [name, change] of Object.entries(changes)) {
      const pod = structuredClone(sealed);
      change(pod);
      pod.metadata.namespace = `changed-${name}`;
      const metadata = { ...settings('').metadata, namespace: pod.metadata.namespace };
      await cluster.apply(
        { apiVersion: 'v1', kind: 'Namespace', metadata: { name: pod.metadata.namespace } },
        { ...settings(name === 'configuration' ? 'slow' : 'fast'), metadata },
      );
      await cluster.ok('wait', '--for=create', 'serviceaccount/default', '-n', metadata.namespace, '--timeout=60s');
      await cluster.apply(pod);
    }
  });
  afterAll(async () => {
    if (cluster.running) {
      await cluster.kubectl('delete', 'pod/guarded', 'pod/debuggable', '--wait=false', '--ignore-not-found');
      for (const name of Object.keys(changes)) await cluster.kubectl('delete', 'namespace', `changed-${name}`);
    }
    await cluster.stop();
  });

  it('a plain manifest runs as it is written, kept to the system calls of RuntimeDefault', async () => {
    await expect
      .poll(() => cluster.ok('logs', 'guarded', '-c', 'main'), { timeout: 30_000 })
      .toBe('mode fast, level high\nSeccomp:\t2\n');
  });

  it.each([
    ['exec', ['exec', 'guarded', '-c', 'main', '--', 'id']],
    [
      'exec of a probe’s command with another argument',
      ['exec', 'guarded', '-c', 'main', '--', 'test', '-e', '/etc/passwd'],
    ],
    ['cp out of the pod', ['cp', 'guarded:/scratch/mode', '/dev/null', '-c', 'main']],
    ['cp into the pod', ['cp', '/etc/hostname', 'guarded:/scratch/planted', '-c', 'main']],
  ])('an administrator’s kubectl %s is refused, by rule and field', async (_name, command) => {
    const result = await cluster.kubectl(...command);
    expect(result.code).not.toBe(0);
    expect(result.stderr).toContain('ExecProcessRequest is blocked by policy');
    expect(result.stderr).toMatch(/ExecProcessRequest: process\.Args: expected \[\[.*"test".*\]\], actual \[/);
  });

  it.each([
    [
      'command',
      /CreateContainerRequest: OCI\.Process\.Args: expected .*actual .*changed.*nearest allowed: container .?"main/,
    ],
    [
      'variable',
      /CreateContainerRequest: OCI\.Process\.Env\[LD_PRELOAD\]: expected "no such variable", actual "LD_PRELOAD=/,
    ],
    ['user', /CreateContainerRequest: OCI\.Process\.User\.UID: expected 1000, actual 0/],
    [
      'image',
      /CreateContainerRequest: OCI\.Annotations\[io\.kubernetes\.cri\.image-name\]: expected .*sha256.*actual .*sha256/,
    ],
    ['dropped', /StartContainerRequest: container_id: expected "main after container prepare", actual/],
    [
      'added',
      /CreateContainerRequest: OCI\.Annotations\[io\.kubernetes\.cri\.container-name\]: expected \["main","prepare"\], actual "spy"/,
    ],
    ['configuration', /CopyFileRequest: content of .*mode in volume .*application/],
  ])('a changed %s is refused by the guest, which names rule, field and what it expected', async (name, text) => {
    const events = await cluster.told(`changed-${name}/guarded`, /is blocked by policy/);
    expect(events.replaceAll('\\"', '"')).toMatch(text);
    // The node has room for a few machines at a time; the others wait for it.
    await cluster.kubectl('delete', 'namespace', `changed-${name}`, '--wait=false');
  });

  describe('kubectl debug', () => {
    const file = () =>
      JSON.stringify([
        {
          name: 'debugger',
          image: cluster.image,
          command: ['/bin/sh', '-c', 'echo looks around; sleep 3600'],
          // What kubectl's profile "general" adds.
          securityContext: { capabilities: { add: ['SYS_PTRACE'] } },
        },
      ]);
    const debug = (name: string) =>
      cluster.ok(
        ...['debug', 'debuggable', '--profile=general', '-c', name, `--image=${cluster.image}`],
        ...['--', '/bin/sh', '-c', 'echo looks around; sleep 3600'],
      );
    const stateOf = async (name: string): Promise<unknown> => {
      const { status } = (await cluster.get('pod', 'debuggable')) as {
        status: { ephemeralContainerStatuses?: readonly { name: string; state: unknown }[] };
      };
      return status.ephemeralContainerStatuses?.find((container) => container.name === name)?.state;
    };

    beforeAll(async () => {
      const list = cluster.file('ephemeral.yaml', file());
      const pod = {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: 'debuggable' },
        spec: {
          runtimeClassName: 'sealpod',
          terminationGracePeriodSeconds: 2,
          containers: [{ name: 'main', image: cluster.image, command: waiting }],
        },
      };
      const { objects } = await cluster.seal([pod], '--ephemeral-containers', list);
      await cluster.apply(...objects);
      await cluster.waitFor('condition=Ready', 'pod/debuggable');
    });

    it('runs a container that the policy names', async () => {
      await debug('debugger');
      await expect.poll(() => stateOf('debugger'), { timeout: 120_000 }).toMatchObject({ running: {} });
      await expect
        .poll(() => cluster.ok('logs', 'debuggable', '-c', 'debugger'), { timeout: 30_000 })
        .toBe('looks around\n');
    });

    it('is refused by name where the policy does not', async () => {
      await debug('intruder');
      const events = await cluster.told('debuggable', /is blocked by policy/);
      expect(events.replaceAll('\\"', '"')).toMatch(
        /OCI\.Annotations\[io\.kubernetes\.cri\.container-name\]: expected \["debugger","main"\], actual "intruder"/,
      );
    });
  });
});
