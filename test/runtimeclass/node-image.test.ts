import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pushImage } from '@sealpod/cli/image';
import { agentPolicy } from '@sealpod/cli/pod';
import { buildReleaseImages, releaseVersion } from '@sealpod/cli/release';
import { bundleGuestAgent } from '@sealpod/guest-agent/bundle';
import { buildPodVmImage } from '@sealpod/peer-pods/pod-vm';
import { findProcesses, type RunningProcess, runningProcesses } from '@sealpod/processes';
import { NamespaceMode } from '@sealpod/protocol/gen/cri/runtime_v1_pb';
import { parseReference } from '@sealpod/registry';
import { initdataAnnotation, workloadInitdata } from '@sealpod/workload';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { NodeApi } from './fixtures/node-api.ts';
import { PlainContainerd } from './fixtures/plain-containerd.ts';
import { freePort, TestRegistry } from './fixtures/registry.ts';

const program = '/usr/bin/containerd';
const obstacle =
  process.env['SEALPOD_LONG_TESTS'] !== '1'
    ? 'builds images and boots machines: set SEALPOD_LONG_TESTS=1'
    : process.getuid?.() !== 0
      ? 'needs root'
      : existsSync(program)
        ? undefined
        : `${program} is not there`;
const running = 0;
const pollOptions = { timeout: 240_000, interval: 500 };

/**
 * The node agent's image in a privileged container, as a DaemonSet has it, on a real containerd; its machines are real.
 * Only the API server is a stand-in that holds one node.
 */
describe.skipIf(obstacle !== undefined)(`the node's image${obstacle ? ` (skipped: ${obstacle})` : ''}`, () => {
  const work = mkdtempSync(join(tmpdir(), 'sp-'));
  const host = (name: string): string => join(work, 'h', name);
  const cache = process.env['SEALPOD_CACHE'] ?? '/var/cache/sealpod';
  const api = new NodeApi();
  let registry: TestRegistry;
  let containerd: PlainContainerd;
  let image: string;
  let port: number;
  let before: readonly string[];

  const traces = (): string[] => [
    ...(existsSync(join(work, 'h')) ? readdirSync(join(work, 'h'), { recursive: true }).map(String) : []),
    ...Object.entries(containerd.files()).map(([name, text]) => `${name}: ${text}`),
    ...readdirSync('/sys/fs/cgroup/pids').filter((name) => name.startsWith('sealpod-')),
  ];
  /** Processes of the installation, without the agent itself. */
  const processes = (): readonly RunningProcess[] =>
    runningProcesses().filter(({ arguments: words }) => words.some((word) => word.includes(`${work}/h/`)));
  const pidOf = (name: string): number | undefined =>
    processes().find(({ arguments: words }) => words.includes(host(`etc/${name}.json`)))?.pid;
  const machines = () => findProcesses({ executable: 'qemu-system-x86_64', marker: `${host('run')}/pods/` });
  const readiness = async (): Promise<string> => {
    const answer = await fetch(`http://127.0.0.1:${port}/readyz`).catch(() => undefined);
    return answer === undefined ? 'no answer' : `${answer.status} ${await answer.text()}`;
  };

  /** Runs the image as the DaemonSet's pod does; returns what ends it. */
  const runAgent = async (name: string, ...args: readonly string[]) => {
    const { runtime } = containerd.cri;
    const namespaceOptions = { network: NamespaceMode.NODE, pid: NamespaceMode.NODE, ipc: NamespaceMode.POD };
    const securityContext = { privileged: true, namespaceOptions };
    const config = containerd.pod(name, { hostname: '', linux: { securityContext } });
    const { podSandboxId } = await runtime.runPodSandbox({ config }, { timeoutMs: 60_000 });
    const { containerId } = await runtime.createContainer({
      podSandboxId,
      sandboxConfig: config,
      config: {
        metadata: { name, attempt: 0 },
        image: { image },
        args: ['--kubeconfig', '/etc/sealpod/kubeconfig', ...args],
        envs: [{ key: 'NODE_NAME', value: 'this' }],
        logPath: `${name}.log`,
        mounts: [
          { containerPath: '/host', hostPath: '/' },
          { containerPath: '/etc/sealpod', hostPath: join(work, 'configmap'), readonly: true },
        ],
        linux: { securityContext },
      },
    });
    await runtime.startContainer({ containerId });
    const log = (): string => readFileSync(join(containerd.folder, 'logs', name, `${name}.log`), 'utf8');
    return {
      log,
      exitCode: async () => {
        const { status } = await runtime.containerStatus({ containerId });
        return status?.finishedAt === 0n ? undefined : status?.exitCode;
      },
      end: async () => {
        await runtime.stopPodSandbox({ podSandboxId }, { timeoutMs: 60_000 });
        await runtime.removePodSandbox({ podSandboxId }, { timeoutMs: 60_000 });
      },
    };
  };
  const untilReady = async (agent: { log: () => string }): Promise<void> => {
    try {
      await expect.poll(readiness, pollOptions).toMatch(/^200 ready/);
    } catch (cause) {
      throw new Error(`${await readiness()}\n${agent.log()}`, { cause });
    }
  };

  beforeAll(async () => {
    // The unprivileged user of the machines runs programs below it.
    chmodSync(work, 0o755);
    const guestAgent = join(work, 'guest-agent');
    await bundleGuestAgent(guestAgent);
    const podVmDirectory = join(work, 'pod-vm');
    const cacheDirectory = join(cache, 'debian');
    await buildPodVmImage({ outputDirectory: podVmDirectory, cacheDirectory, guestAgentDirectory: guestAgent });
    const images = await buildReleaseImages({ output: join(work, 'images'), cacheDirectory, podVmDirectory });
    const [node] = images;
    registry = new TestRegistry(join(work, 'registry'), await freePort());
    await registry.start();
    image = `${registry.address}/sealpod-node:${releaseVersion}`;
    await pushImage({
      source: { kind: 'layout', directory: node?.layout ?? '', tag: releaseVersion },
      destination: parseReference(image),
      plainHttpHosts: new Set([registry.address]),
    });
    const sleeping = { file: '/bin/busybox', args: ['sleep', '1000000'] };
    containerd = new PlainContainerd(program, registry.push('pause', { program: sleeping }));
    await containerd.start();
    await containerd.cri.images.pullImage({ image: { image } }, { timeoutMs: 300_000 });
    port = await freePort();
    const configmap = join(work, 'configmap');

    mkdirSync(configmap);
    mkdirSync(join(work, 'h'));
    writeFileSync(join(configmap, 'kubeconfig'), await api.start());
    writeFileSync(
      join(configmap, 'node-agent.json'),
      JSON.stringify({
        prefix: host('opt'),
        configDirectory: host('etc'),
        stateDirectory: host('state'),
        runDirectory: host('run'),
        services: 'agent',
        hostProcess: 'containerd',
        containerd: {
          configuration: containerd.configuration,
          socket: containerd.socket,
          program,
          restart: { command: [containerd.restartScript] },
        },
        capacity: { resource: 'kata.peerpods.io/vm', count: 3 },
        health: { address: '127.0.0.1', port },
        intervalSeconds: 2,
      }),
    );
    before = traces();
  }, 1_200_000);

  afterAll(async () => {
    await containerd?.removePods().catch((error: unknown) => console.error('pods are left:', error));
    for (const { pid } of [...machines(), ...processes()]) process.kill(pid, 'SIGKILL');
    containerd?.stop();
    registry?.stop();
    api.stop();
    rmSync(work, { recursive: true, force: true });
  });

  test('makes a node run pods in real machines, which outlive the agent, and leaves nothing when it goes', async () => {
    const agent = await runAgent('agent');
    await untilReady(agent);
    expect(api.labels).toEqual({ keep: 'me', 'sealpod.io/runtime': 'true' });
    expect(api.capacity).toEqual({ cpu: '2', 'kata.peerpods.io/vm': '3' });
    expect(await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()).toMatch(/^sealpod_node_ready 1$/m);

    const initdata = workloadInitdata({
      kbs: {
        url: 'https://192.0.2.1:8080',
        certificatePem: '-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n',
      },
      images: [],
      agentPolicy: agentPolicy({ containers: [], allowExec: false }),
    });
    const pod = containerd.pod('sealed', { annotations: { [initdataAnnotation]: initdata.annotation } });
    const { runtime } = containerd.cri;
    const { podSandboxId } = await runtime.runPodSandbox(
      { config: pod, runtimeHandler: 'sealpod' },
      { timeoutMs: 300_000 },
    );
    const status = async () => (await runtime.podSandboxStatus({ podSandboxId })).status?.state;
    expect(await status()).toBe(running);

    // QEMU and its libraries are those of the image, and none of this machine's.
    const [machine] = machines();
    const maps = readFileSync(`/proc/${machine?.pid}/maps`, 'utf8');
    const files = new Set(maps.split('\n').flatMap((line) => /\s(\/\S+)$/.exec(line)?.[1] ?? []));
    expect([...files].filter((file) => file.includes('/lib') && !file.startsWith(host('opt/versions/')))).toEqual([]);

    const lasting = [pidOf('adaptor'), pidOf('snapshotter'), machine?.pid];
    await agent.end();
    expect(await readiness()).toBe('no answer');
    expect(await status()).toBe(running);
    const next = await runAgent('next');
    await untilReady(next);
    expect([pidOf('adaptor'), pidOf('snapshotter'), machines()[0]?.pid]).toEqual(lasting);

    process.kill(pidOf('adaptor') ?? 0, 'SIGKILL');
    rmSync(host('opt/current'));
    await expect.poll(() => existsSync(host('opt/current')), { timeout: 30_000 }).toBe(true);
    await untilReady(next);
    await expect.poll(() => pidOf('adaptor'), pollOptions).toBeDefined();
    expect(machines()[0]?.pid).toBe(machine?.pid);
    await next.end();

    const refused = await runAgent('refused', '--uninstall');
    await expect.poll(refused.exitCode, pollOptions).toBe(1);
    expect(refused.log()).toContain('1 sealed pods run on this node');
    await refused.end();
    expect(await status()).toBe(running);

    const removal = await runAgent('removal', '--uninstall', '--force');
    await expect.poll(removal.exitCode, pollOptions).toBe(0);
    await removal.end();
    expect(machines()).toEqual([]);
    expect(processes()).toEqual([]);
    expect(traces()).toEqual(before);
    expect([api.labels, api.capacity]).toEqual([{ keep: 'me' }, { cpu: '2' }]);
  }, 1_200_000);
});
