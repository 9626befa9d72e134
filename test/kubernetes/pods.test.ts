import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { spawn as spawnTerminal } from '@lydell/node-pty';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { clusterObstacle, layersObstacle, nodeObstacle, skipped } from './access.ts';
import { fetchText, freePort } from './connections.ts';
import { TestCluster, type TestContainer, type TestPod } from './test-cluster.ts';

const obstacle = clusterObstacle();
const onNode = nodeObstacle();

/** Serves a page, and answers `TERM` as a program should. */
const server = (page: string): readonly string[] => [
  '/bin/sh',
  '-c',
  `mkdir -p /tmp/www; echo ${page} > /tmp/www/index.html; touch /tmp/healthy; echo started; exec httpd -f -p 8080 -h /tmp/www`,
];
const waiting = ['/bin/sh', '-c', 'while :; do sleep 1; done'];

/** One pod for most of what is asserted: a machine takes its time to boot. */
const main: TestPod = {
  name: 'main',
  initContainers: [
    {
      name: 'prepare',
      command: ['/bin/sh', '-c', 'echo prepared > /scratch/init; echo in memory > /memory/init'],
      volumeMounts: shared(),
    },
    {
      name: 'sidecar',
      restartPolicy: 'Always',
      command: ['/bin/sh', '-c', 'echo sidecar > /scratch/sidecar; while :; do sleep 1; done'],
      volumeMounts: shared(),
    },
  ],
  containers: [
    {
      name: 'main',
      command: server('from the machine'),
      ports: [{ containerPort: 8080 }],
      startupProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1, failureThreshold: 60 },
      readinessProbe: { httpGet: { path: '/', port: 8080 }, periodSeconds: 1 },
      livenessProbe: {
        exec: { command: ['cat', '/tmp/healthy'] },
        periodSeconds: 2,
        timeoutSeconds: 20,
        failureThreshold: 10,
      },
      resources: { requests: { cpu: '50m', memory: '32Mi' }, limits: { cpu: '500m', memory: '96Mi' } },
      env: [
        { name: 'PLAIN', value: 'as written' },
        { name: 'GREETING', valueFrom: { configMapKeyRef: { name: 'settings', key: 'greeting' } } },
        { name: 'PASSWORD', valueFrom: { secretKeyRef: { name: 'credentials', key: 'password' } } },
        { name: 'POD_NAME', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } },
        { name: 'POD_IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
        { name: 'MEMORY', valueFrom: { resourceFieldRef: { resource: 'limits.memory' } } },
      ],
      envFrom: [{ prefix: 'ALL_', configMapRef: { name: 'settings' } }],
      volumeMounts: [
        ...shared(),
        { name: 'settings', mountPath: '/settings' },
        { name: 'settings', mountPath: '/one', subPath: 'greeting' },
        { name: 'credentials', mountPath: '/credentials', readOnly: true },
        { name: 'projected', mountPath: '/projected' },
        { name: 'downward', mountPath: '/downward' },
      ],
    },
    {
      name: 'restricted',
      command: waiting,
      securityContext: {
        runAsUser: 1000,
        runAsNonRoot: true,
        readOnlyRootFilesystem: true,
        allowPrivilegeEscalation: false,
        capabilities: { drop: ['ALL'] },
      },
      volumeMounts: shared(),
    },
    {
      name: 'input',
      stdin: true,
      command: ['/bin/sh', '-c', 'while read line; do echo "got $line"; done; sleep 3600'],
    },
  ],
  spec: {
    hostname: 'sealed-host',
    securityContext: { fsGroup: 2000 },
    volumes: [
      { name: 'scratch', emptyDir: {} },
      { name: 'memory', emptyDir: { medium: 'Memory', sizeLimit: '16Mi' } },
      { name: 'settings', configMap: { name: 'settings' } },
      { name: 'credentials', secret: { secretName: 'credentials', defaultMode: 0o440 } },
      { name: 'downward', downwardAPI: { items: [{ path: 'labels', fieldRef: { fieldPath: 'metadata.labels' } }] } },
      {
        name: 'projected',
        projected: {
          sources: [
            { configMap: { name: 'settings', items: [{ key: 'greeting', path: 'folder/greeting' }] } },
            { secret: { name: 'credentials' } },
            { serviceAccountToken: { path: 'token', audience: 'tests' } },
          ],
        },
      },
    ],
  },
};

function shared(): readonly object[] {
  return [
    { name: 'scratch', mountPath: '/scratch' },
    { name: 'memory', mountPath: '/memory' },
  ];
}

/** A pod whose containers end in different ways. */
const ending: TestPod = {
  name: 'ending',
  containers: [
    { name: 'crash', command: ['/bin/sh', '-c', 'echo "run of $HOSTNAME"; sleep 1; exit 3'] },
    {
      name: 'greedy',
      command: ['/bin/sh', '-c', 'sleep 1; head -c 300000000 /dev/zero | tail'],
      resources: { limits: { memory: '24Mi' } },
    },
    { name: 'message', command: ['/bin/sh', '-c', 'echo goodbye > /dev/termination-log; exit 4'] },
    {
      name: 'graceful',
      command: ['/bin/sh', '-c', 'trap "echo got TERM; exit 0" TERM; echo waits; while :; do sleep 0.2; done'],
    },
  ],
  spec: { terminationGracePeriodSeconds: 20 },
};

interface ContainerStatus {
  readonly name: string;
  readonly restartCount: number;
  readonly ready: boolean;
  readonly lastState?: {
    readonly terminated?: { readonly reason: string; readonly exitCode: number; readonly message?: string };
  };
  readonly state?: {
    readonly running?: object;
    readonly waiting?: { readonly reason: string; readonly message?: string };
  };
}

describe.skipIf(obstacle !== undefined)(`pods in machines of their own on Kubernetes${skipped(obstacle)}`, () => {
  const cluster = new TestCluster();
  let plainImage = '';

  const exec = (container: string, ...command: readonly string[]) =>
    cluster.ok('exec', 'main', '-c', container, '--', ...command);
  const shell = (text: string, container = 'main') => exec(container, '/bin/sh', '-c', text);
  const statuses = async (pod: string): Promise<readonly ContainerStatus[]> => {
    const { status } = (await cluster.get('pod', pod)) as {
      status: { containerStatuses?: readonly ContainerStatus[] };
    };
    return status.containerStatuses ?? [];
  };
  const statusOf = async (pod: string, container: string): Promise<ContainerStatus | undefined> =>
    (await statuses(pod)).find(({ name }) => name === container);

  beforeAll(async () => {
    await cluster.start();
    plainImage = await cluster.pushBusybox('tests/plain', 'for runc');
    const service = (name: string) => ({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name },
      spec: { selector: { app: name }, ports: [{ port: 80, targetPort: 8080 }] },
    });
    await cluster.apply(
      { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'settings' }, data: { greeting: 'hello', other: 'x' } },
      { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'credentials' }, stringData: { password: 's3cret' } },
      service('main'),
      service('plain'),
      {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: 'plain', labels: { app: 'plain' } },
        spec: {
          terminationGracePeriodSeconds: 0,
          containers: [{ name: 'main', image: plainImage, command: server('from runc') }],
        },
      },
      cluster.pod(main),
    );
    await cluster.waitFor('condition=Ready', 'pod/main', 'pod/plain');
  });
  afterAll(() => cluster.stop());

  describe('kubectl', () => {
    it('the pod runs in a machine of its own, with another kernel', async () => {
      const inside = await shell('cat /proc/version; cat /proc/cmdline');
      expect(inside).toContain('roothash=');
      expect(inside).not.toContain(readFileSync('/proc/version', 'utf8').trim());
    });

    it('logs, and follows them', async () => {
      expect(await cluster.ok('logs', 'main', '-c', 'main')).toBe('started\n');
      const follow = cluster.spawnKubectl('logs', '-f', 'main', '-c', 'input');
      let text = '';
      follow.stdout.on('data', (chunk: Buffer) => {
        text += chunk;
      });
      try {
        await shell('echo direct > /proc/1/fd/1', 'input');
        await expect.poll(() => text, { timeout: 20_000 }).toContain('direct\n');
      } finally {
        follow.kill();
      }
    });

    it('exec: output, errors, exit codes and standard input', async () => {
      const result = await cluster.kubectl(
        'exec',
        'main',
        '-c',
        'main',
        '--',
        'sh',
        '-c',
        'echo out; echo err >&2; exit 7',
      );
      expect(result).toMatchObject({ code: 7, stdout: 'out\n' });
      expect(result.stderr).toContain('err\n');
      expect(await cluster.withInput('some text', 'exec', '-i', 'main', '-c', 'main', '--', 'sha256sum')).toMatch(
        /^b94f6f125c79e3a5ffaa826f584c10d52ada669e6762051b826b55776d05aed2/,
      );
    });

    it('exec -it: a terminal with its size, interrupted by a key', async () => {
      const [kubectl, ...first] = cluster.kubectlCommand;
      const args = [...first, 'exec', '-it', 'main', '-c', 'main', '--', 'sh'];
      const terminal = spawnTerminal(kubectl, args, { cols: 101, rows: 33 });
      let text = '';
      terminal.onData((data) => {
        text += data;
      });
      const exited = new Promise<number>((resolve) => terminal.onExit(({ exitCode }) => resolve(exitCode)));
      await expect.poll(() => text, { timeout: 20_000 }).toContain('#');
      terminal.write('tty; stty size\r');
      await expect.poll(() => text, { timeout: 20_000 }).toMatch(/\/dev\/pts\/\d+[\s\S]*33 101/);
      terminal.resize(120, 40);
      await expect
        .poll(
          () => {
            terminal.write('stty size\r');
            return text;
          },
          { timeout: 20_000, interval: 1000 },
        )
        .toContain('40 120');
      terminal.write('sh -c "echo begun; sleep 1000"\r');
      await expect.poll(() => text, { timeout: 20_000 }).toMatch(/begun\r\n/);
      terminal.write('\u0003');
      terminal.write('exit 5\r');
      expect(await exited).toBe(5);
    });

    it('attach: what is typed reaches the first process', async () => {
      const attached = cluster.spawnKubectl('attach', '-i', 'main', '-c', 'input');
      let text = '';
      attached.stdout.on('data', (chunk: Buffer) => {
        text += chunk;
      });
      try {
        attached.stdin.write('a line\n');
        await expect.poll(() => text, { timeout: 20_000 }).toContain('got a line\n');
      } finally {
        attached.kill();
      }
    });

    it('cp, both ways', async () => {
      const folder = mkdtempSync(join(tmpdir(), 'sealpod-cp-'));
      try {
        const content = randomBytes(200_000);
        writeFileSync(join(folder, 'there'), content);
        await cluster.ok('cp', join(folder, 'there'), 'main:/tmp/copied', '-c', 'main');
        await cluster.ok('cp', 'main:/tmp/copied', join(folder, 'back'), '-c', 'main');
        expect(readFileSync(join(folder, 'back')).equals(content)).toBe(true);
      } finally {
        rmSync(folder, { recursive: true });
      }
    });

    it('port-forward', async () => {
      const port = await freePort();
      const forward = cluster.spawnKubectl('port-forward', 'pod/main', `${port}:8080`);
      try {
        await expect.poll(() => fetchText(`http://127.0.0.1:${port}/`), { timeout: 20_000 }).toBe('from the machine\n');
      } finally {
        forward.kill();
      }
    });
  });

  describe('containers', () => {
    it('init containers ran before, sidecars and all others run together', async () => {
      const { status } = (await cluster.get('pod', 'main')) as {
        status: { initContainerStatuses: readonly { name: string; state: object; started?: boolean }[] };
      };
      expect(status.initContainerStatuses).toMatchObject([
        { name: 'prepare', state: { terminated: { exitCode: 0, reason: 'Completed' } } },
        { name: 'sidecar', state: { running: {} } },
      ]);
      expect((await statuses('main')).map(({ name, ready, restartCount }) => [name, ready, restartCount])).toEqual([
        ['input', true, 0],
        ['main', true, 0],
        ['restricted', true, 0],
      ]);
    });

    it('emptyDir of both media is shared by all containers, and in memory where that is asked for', async () => {
      expect(await shell('cat /scratch/init /scratch/sidecar /memory/init')).toBe('prepared\nsidecar\nin memory\n');
      await shell('echo from 1000 > /scratch/user; echo more > /memory/user', 'restricted');
      expect(await shell('cat /scratch/user /memory/user')).toBe('from 1000\nmore\n');
      expect(await shell('mount | grep " /memory "')).toContain('tmpfs');
    });

    it('environment from values, ConfigMaps, Secrets, fields and resources', async () => {
      expect(await shell('echo $PLAIN,$GREETING,$PASSWORD,$POD_NAME,$MEMORY,$ALL_other')).toBe(
        `as written,hello,s3cret,main,${96 << 20},x\n`,
      );
      expect((await shell('echo $POD_IP')).trim()).toBe(await podAddress('main'));
      expect(await shell('echo $PLAIN_SERVICE_HOST')).toMatch(/^10\./);
    });

    it('host name and name resolution', async () => {
      expect(await shell('hostname')).toBe('sealed-host\n');
      expect(await shell('cat /etc/hostname')).toBe('sealed-host\n');
      expect(await shell('cat /etc/hosts')).toMatch(new RegExp(`^${await podAddress('main')}\\s+sealed-host$`, 'm'));
      expect(await shell('cat /etc/resolv.conf')).toContain('search default.svc.cluster.local svc.cluster.local');
    });

    it('security context: user, groups, capabilities, read-only root file system', async () => {
      expect(await shell('id -u; id -G', 'restricted')).toMatch(/^1000\n.*\b2000\b/);
      expect(await shell('grep -E "^(CapEff|CapBnd|NoNewPrivs)" /proc/self/status', 'restricted')).toBe(
        'CapBnd:\t0000000000000000\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n'.replace(
          /(CapBnd.*\n)(CapEff.*\n)/,
          '$2$1',
        ),
      );
      const written = await cluster.kubectl('exec', 'main', '-c', 'restricted', '--', 'touch', '/forbidden');
      expect(written.stderr).toContain('Read-only file system');
    });

    it('resource limits are those of the guest’s cgroup', async () => {
      expect(await shell('cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max')).toBe(`${96 << 20}\n50000 100000\n`);
    });
  });

  describe('volumes', () => {
    it('ConfigMap, Secret, projected and downward volumes', async () => {
      expect(await shell('cat /settings/greeting /one /credentials/password /projected/folder/greeting')).toBe(
        'hellohellos3crethello',
      );
      expect(await shell('cat /downward/labels')).toBe('app="main"');
      expect(await shell('ls -l /credentials/..data/')).toMatch(/-r--r-----.*2000.*password/);
      const [, claims = ''] = (await shell('cat /projected/token')).split('.');
      expect(JSON.parse(Buffer.from(claims, 'base64url').toString())).toMatchObject({ aud: ['tests'] });
    });

    it('are updated while the pod runs', async () => {
      await cluster.ok('patch', 'configmap', 'settings', '-p', '{"data":{"greeting":"changed","added":"new"}}');
      await cluster.ok('label', 'pod', 'main', 'colour=blue');
      await expect
        .poll(() => shell('cat /settings/greeting /settings/added'), { timeout: 150_000, interval: 2000 })
        .toBe('changednew');
      await expect
        .poll(() => shell('cat /projected/folder/greeting'), { timeout: 90_000, interval: 2000 })
        .toBe('changed');
      await expect
        .poll(() => shell('cat /downward/labels'), { timeout: 90_000, interval: 2000 })
        .toContain('colour="blue"');
    });
  });

  describe('network', () => {
    it('Services, both ways, by name', async () => {
      expect(await shell('wget -qO- http://plain/')).toBe('from runc\n');
      expect(await cluster.ok('exec', 'plain', '--', 'wget', '-qO-', 'http://main.default.svc.cluster.local/')).toBe(
        'from the machine\n',
      );
      expect(await fetchText(`http://${await podAddress('main')}:8080/`)).toBe('from the machine\n');
    });
  });

  describe('the node', () => {
    it('statistics of the pod are those of its guest', async () => {
      const node = await cluster.ok('get', 'pod', 'main', '-o', 'jsonpath={.spec.nodeName}');
      const summary = JSON.parse(await cluster.ok('get', '--raw', `/api/v1/nodes/${node}/proxy/stats/summary`)) as {
        pods: readonly {
          podRef: { name: string };
          containers?: readonly {
            name: string;
            memory?: { workingSetBytes?: number };
            cpu?: { usageCoreNanoSeconds?: number };
          }[];
        }[];
      };
      const containers = summary.pods.find(({ podRef }) => podRef.name === 'main')?.containers ?? [];
      const found = containers.find(({ name }) => name === 'main');
      expect(found?.memory?.workingSetBytes).toBeGreaterThan(100_000);
      expect(found?.cpu?.usageCoreNanoSeconds).toBeGreaterThan(1_000_000);
    });

    it.skipIf(onNode !== undefined)(
      `containerd is killed and comes back: the pod runs on and is served${skipped(onNode)}`,
      async () => {
        const { restartContainerd, clusterStatus, readClusterState } = await import('@sealpod/cluster');
        const daemon = readClusterState(cluster.directory)?.daemons.find(({ name }) => name === 'containerd');
        process.kill(daemon?.pid ?? 0, 'SIGKILL');
        await expect.poll(() => clusterStatus(cluster.directory).running).toBe(false);
        await restartContainerd(cluster.directory);
        await expect
          .poll(async () => (await cluster.kubectl('exec', 'main', '-c', 'main', '--', 'echo', 'alive')).stdout, {
            timeout: 30_000,
          })
          .toBe('alive\n');
        expect((await statuses('main')).map(({ restartCount }) => restartCount)).toEqual([0, 0, 0]);
      },
    );
  });

  describe('what ends', () => {
    it('restarts, earlier logs, out of memory and termination messages are reported', async () => {
      await cluster.apply(cluster.pod(ending));
      // Until its machine runs.
      await cluster.waitFor('jsonpath={.status.phase}=Running', 'pod/ending');
      await expect
        .poll(async () => (await statusOf('ending', 'crash'))?.restartCount ?? 0, { timeout: 120_000, interval: 1000 })
        .toBeGreaterThan(0);
      expect((await statusOf('ending', 'crash'))?.lastState?.terminated).toMatchObject({
        reason: 'Error',
        exitCode: 3,
      });
      // The log goes with the container, and a new run may end at any time.
      await expect
        .poll(() => cluster.ok('logs', '--previous', 'ending', '-c', 'crash'), { timeout: 60_000, interval: 500 })
        .toBe('run of ending\n');
      const terminated = async (name: string) => (await statusOf('ending', name))?.lastState?.terminated;
      await expect
        .poll(() => terminated('greedy'), { timeout: 60_000, interval: 1000 })
        .toMatchObject({ reason: 'OOMKilled', exitCode: 137 });
      await expect
        .poll(() => terminated('message'), { timeout: 30_000, interval: 1000 })
        .toMatchObject({ exitCode: 4, message: 'goodbye\n' });
    });

    it('a deleted pod gets SIGTERM, and its grace', async () => {
      const follow = cluster.spawnKubectl('logs', '-f', 'ending', '-c', 'graceful');
      let text = '';
      follow.stdout.on('data', (chunk: Buffer) => {
        text += chunk;
      });
      try {
        await expect.poll(() => text, { timeout: 20_000 }).toContain('waits\n');
        await cluster.delete('pod/ending');
        expect(text).toBe('waits\ngot TERM\n');
      } finally {
        follow.kill();
      }
    });

    it('a policy that allows no exec still allows probes of its commands, and nothing else', async () => {
      const command = ['cat', '/tmp/healthy'];
      const probe = { exec: { command }, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 30 };
      // The image is on the node already: a plain pod pulled it.
      const container: TestContainer = {
        name: 'main',
        image: plainImage,
        command: server('closed'),
        readinessProbe: probe,
      };
      await cluster.apply(
        cluster.pod({ name: 'closed', containers: [container], allowExec: false, commands: [command] }),
      );
      await cluster.waitFor('condition=Ready', 'pod/closed');
      const refused = await cluster.kubectl('exec', 'closed', '--', 'id');
      expect(refused.code).not.toBe(0);
      expect(refused.stderr).toContain('ExecProcessRequest is blocked by policy');
      await cluster.delete('pod/closed');
    });
  });

  describe('images', () => {
    const layersOnNode = onNode ?? layersObstacle();
    it.skipIf(layersOnNode !== undefined)(
      `a plain image that a sealed pod pulled runs in a plain pod, also after it was removed from the node${skipped(layersOnNode)}`,
      async () => {
        const pod = (name: string) => ({
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: { name },
          spec: {
            terminationGracePeriodSeconds: 0,
            containers: [{ name: 'main', image: cluster.image, command: waiting }],
          },
        });
        await cluster.apply(pod('after-sealed'));
        await cluster.waitFor('condition=Ready', 'pod/after-sealed');
        expect(await cluster.ok('exec', 'after-sealed', '--', 'cat', '/content')).toBe('plain\n');
        await cluster.delete('pod/after-sealed');
        cluster.removeImage(cluster.image);
        await cluster.apply(pod('after-removal'));
        await cluster.waitFor('condition=Ready', 'pod/after-removal');
        await cluster.delete('pod/after-removal');
      },
    );

    it.skipIf(onNode !== undefined)(
      `a plain image that a plain pod pulled runs in a sealed pod, also after it was removed from the node${skipped(onNode)}`,
      async () => {
        const pod = (name: string) =>
          cluster.pod({ name, containers: [{ name: 'main', image: plainImage, command: waiting }] });
        for (const name of ['after-plain', 'after-plain-removal']) {
          await cluster.apply(pod(name));
          await cluster.waitFor('condition=Ready', `pod/${name}`);
          expect(await cluster.ok('exec', name, '--', 'cat', '/content')).toBe('for runc\n');
          await cluster.delete(`pod/${name}`);
          if (name === 'after-plain') cluster.removeImage(plainImage);
        }
      },
    );

    it.skipIf(onNode !== undefined)(
      `an encrypted image in a Deployment runs, its key released after attestation${skipped(onNode)}`,
      async () => {
        const message = 'only an attested guest reads this';
        await cluster.json('image', 'demo', 'plain/hello:1', '--message', message);
        await cluster.json('image', 'encrypt', 'plain/hello:1', 'sealed/hello:1', '--key', 'default/image-key/hello');
        const image = await cluster.resolve('sealed/hello:1');
        const pod: TestPod = {
          name: 'encrypted',
          containers: [{ name: 'main', image, command: ['/bin/sh', '-c', 'cat /message; exec sleep 3600'] }],
        };
        const digest = createHash('sha256').update(cluster.initdata(pod)).digest('hex');
        await cluster.json('refvalue', 'put', 'tpm_initdata', digest);
        const spec = { replicas: 1, selector: { matchLabels: { app: pod.name } }, template: cluster.template(pod) };
        await cluster.apply({ apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: pod.name }, spec });
        await cluster.waitFor('condition=Available', 'deployment/encrypted');
        await expect
          .poll(() => cluster.ok('logs', 'deployment/encrypted'), { timeout: 60_000, interval: 500 })
          .toBe(`${message}\n`);
        const explained = (await cluster.json('explain', '--last', '--all')) as readonly Record<string, unknown>[];
        expect(explained.map(({ kind, outcome }) => [kind, outcome])).toEqual([
          ['auth', 'OK'],
          ['attest', 'OK'],
          ['resource', 'OK'],
        ]);
        await cluster.delete('deployment/encrypted');
      },
    );
  });

  describe('what is refused', () => {
    it.each([
      ['hostNetwork', { hostNetwork: true }, {}, /network of the node \(hostNetwork\) is not supported/],
      ['hostPID', { hostPID: true }, {}, /processes of the node \(hostPID\) are not supported/],
      [
        'hostPath',
        { volumes: [{ name: 'node', hostPath: { path: '/etc' } }] },
        {},
        /folder of the node \(hostPath\) is not supported/,
      ],
      ['privileged', {}, { securityContext: { privileged: true } }, /privileged container is not supported/],
    ])('%s, at admission', async (name, spec, fields, text) => {
      const container: TestContainer = { name: 'main', command: waiting, ...fields };
      const pod = cluster.pod({ name: name.toLowerCase(), containers: [container], spec });
      await expect(cluster.apply(pod)).rejects.toThrow(text);
    });

    // A given cluster keeps its admission policies.
    it.skipIf(nodeObstacle() !== undefined)(
      `hostNetwork, by the shim and before a machine boots, where admission lets it pass${skipped(nodeObstacle())}`,
      async () => {
        const name = 'sealpod.io-unsupported';
        const { apiVersion, kind, spec: kept } = await cluster.get('validatingadmissionpolicybinding', name);
        await cluster.ok('delete', 'validatingadmissionpolicybinding', name);
        try {
          const containers = [{ name: 'main', command: waiting }];
          const pod = cluster.pod({ name: 'on-node', containers, spec: { hostNetwork: true } });
          // The API server forgets the policy a moment later.
          await expect
            .poll(() => cluster.apply(pod).then(() => 'admitted', String), { timeout: 30_000, interval: 500 })
            .toBe('admitted');
          await expect
            .poll(() => cluster.ok('get', 'events', '--field-selector', 'involvedObject.name=on-node'), {
              timeout: 20_000,
            })
            .toContain('the network of the node (hostNetwork) is not supported');
          await cluster.delete('pod/on-node');
        } finally {
          await cluster.apply({ apiVersion, kind, metadata: { name }, spec: kept });
        }
      },
    );
  });

  async function podAddress(name: string): Promise<string> {
    return cluster.ok('get', 'pod', name, '-o', 'jsonpath={.status.podIP}');
  }
});
