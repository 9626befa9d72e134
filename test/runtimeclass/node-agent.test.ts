import {
  appendFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isRunning, runningProcesses } from '@sealpod/processes';
import { bundlePrograms, bundleShim } from '@sealpod/runtimeclass/bundle';
import {
  type AgentStatus,
  createLog,
  describeStatus,
  NodeAgent,
  type NodeAgentConfig,
  NodeAgentMetrics,
  NodeInstallation,
  parseNodeAgentConfig,
  readPayloadRecord,
  uninstall,
  writePayloadRecord,
} from '@sealpod/runtimeclass/node-agent';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { PlainContainerd } from './fixtures/plain-containerd.ts';
import { freePort, TestRegistry } from './fixtures/registry.ts';

const program = '/usr/bin/containerd';
const obstacle = process.getuid?.() !== 0 ? 'needs root' : existsSync(program) ? undefined : `${program} is not there`;
const quiet = createLog('silent');

/** The API server's view of the node, as the agent wrote it. */
class RecordedNode {
  serving: boolean | undefined;
  publish = async (serving: boolean): Promise<void> => {
    this.serving = serving;
  };
  withdraw = async (): Promise<void> => {
    this.serving = undefined;
  };
}

/** What a release places, without hypervisor and image: guests of this test are processes. */
async function writeRelease(directory: string, version: string): Promise<void> {
  const library = join(directory, 'lib');
  await bundleShim(library);
  const adaptor = fileURLToPath(new URL('../../peer-pods/adaptor/main.ts', import.meta.url));
  await bundlePrograms(library, { adaptor });
  const node = readFileSync(join(library, 'node'));
  rmSync(join(library, 'node'));
  writeFileSync(join(library, 'node'), node, { mode: 0o755 });
  writeFileSync(join(library, 'release.txt'), version);
  writePayloadRecord(directory, version);
}

// Each look starts programs and may restart containerd: on a busy machine that takes its time.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

describe.skipIf(obstacle !== undefined)(
  `the node agent on a containerd${obstacle ? ` (skipped: ${obstacle})` : ''}`,
  () => {
    const work = mkdtempSync(join(tmpdir(), 'sp-'));
    const metrics = new NodeAgentMetrics();
    let registry: TestRegistry;
    let containerd: PlainContainerd;
    let config: NodeAgentConfig;
    let before: readonly string[];
    const node = new RecordedNode();

    const configuration = (more: object = {}): NodeAgentConfig =>
      parseNodeAgentConfig(
        JSON.stringify({
          hostRoot: '/',
          payload: join(work, 'one'),
          prefix: join(work, 'h/opt'),
          configDirectory: join(work, 'h/etc'),
          stateDirectory: join(work, 'h/state'),
          runDirectory: join(work, 'h/run'),
          services: 'agent',
          containerd: {
            configuration: containerd.configuration,
            socket: containerd.socket,
            program,
            restart: { command: [containerd.restartScript] },
            readyTimeoutSeconds: 120,
          },
          adaptor: {
            provider: {
              name: 'module',
              path: fileURLToPath(new URL('fixtures/process-provider.ts', import.meta.url)),
            },
          },
          ...more,
        }),
        'test',
      );
    const agentOf = (settings: NodeAgentConfig): NodeAgent => {
      const installation = new NodeInstallation(settings);
      return new NodeAgent({ installation, release: readPayloadRecord(settings.payload), node, metrics, log: quiet });
    };
    const ready = (status: AgentStatus): void => expect(describeStatus(status)).toMatch(/^ready/);
    const processesOf = (name: string) =>
      runningProcesses().filter(({ arguments: words }) => words.includes(join(work, 'h/etc', `${name}.json`)));
    /** Every path below the host's folders of this test, and containerd's configuration. */
    const traces = (): string[] => [
      ...readdirSync(join(work, 'h'), { recursive: true }).map(String).sort(),
      ...Object.entries(containerd.files()).map(([name, text]) => `${name}: ${text}`),
    ];
    const runPod = async (name: string) => {
      const { runtime } = containerd.cri;
      const pod = containerd.pod(name);
      const { podSandboxId } = await runtime.runPodSandbox(
        { config: pod, runtimeHandler: 'sealpod' },
        { timeoutMs: 240_000 },
      );
      return {
        podSandboxId,
        status: async () => (await runtime.podSandboxStatus({ podSandboxId })).status?.state,
        remove: async () => {
          await runtime.stopPodSandbox({ podSandboxId }, { timeoutMs: 120_000 });
          await runtime.removePodSandbox({ podSandboxId }, { timeoutMs: 120_000 });
        },
      };
    };
    const running = 0;

    beforeAll(async () => {
      mkdirSync(join(work, 'h'));
      await Promise.all([writeRelease(join(work, 'one'), '1.0.0'), writeRelease(join(work, 'two'), '2.0.0')]);
      registry = new TestRegistry(join(work, 'registry'), await freePort());
      await registry.start();
      containerd = new PlainContainerd(program, registry.push('pause'));
      await containerd.start();
      config = configuration();
      before = traces();
    });
    afterAll(() => {
      for (const { pid } of [...processesOf('adaptor'), ...processesOf('snapshotter')]) process.kill(pid, 'SIGKILL');
      containerd?.stop();
      registry?.stop();
      rmSync(work, { recursive: true, force: true });
    });

    test('makes it run pods, and a second look changes nothing', async () => {
      const agent = agentOf(config);
      ready(await agent.look());
      expect(node.serving).toBe(true);
      const { pid } = containerd;
      const services = () => [...processesOf('adaptor'), ...processesOf('snapshotter')].map(({ pid }) => pid);
      const first = services();
      expect(first).toHaveLength(2);
      ready(await agent.look());
      expect([containerd.pid, services()]).toEqual([pid, first]);
      const pod = await runPod('first');
      expect(await pod.status()).toBe(running);
      await pod.remove();
    });

    test('repairs what is deleted, changed or dead, without a restart of containerd', async () => {
      const agent = agentOf(config);
      ready(await agent.look());
      const { pid } = containerd;
      const library = join(work, 'h/opt/current/lib');
      rmSync(join(library, 'shim.cjs'));
      appendFileSync(join(library, 'adaptor.mjs'), '\n// changed');
      rmSync(join(work, 'h/etc/shim.json'));
      const [adaptor] = processesOf('adaptor');
      process.kill(adaptor?.pid ?? 0, 'SIGKILL');
      ready(await agent.look());
      expect(readFileSync(join(library, 'shim.cjs'))).toEqual(readFileSync(join(work, 'one/lib/shim.cjs')));
      expect(readFileSync(join(library, 'adaptor.mjs'), 'utf8')).not.toContain('// changed');
      expect(existsSync(join(work, 'h/etc/shim.json'))).toBe(true);
      expect(processesOf('adaptor').map((found) => found.pid)).not.toEqual([adaptor?.pid]);
      expect(containerd.pid).toBe(pid);
    });

    test('upgrades and goes back with a pod running; a release goes when nothing uses it any more', async () => {
      const pod = await runPod('lasting');
      const { pid } = containerd;
      const versions = () => readdirSync(join(work, 'h/opt/versions')).map((name) => name.split('-')[0]);
      const release = () => readFileSync(join(work, 'h/opt/current/lib/release.txt'), 'utf8');
      const upgraded = agentOf(configuration({ payload: join(work, 'two') }));
      ready(await upgraded.look());
      expect([release(), versions()]).toEqual(['2.0.0', ['1.0.0', '2.0.0']]);
      expect(await pod.status()).toBe(running);
      expect(containerd.pid).toBe(pid);
      const other = await runPod('younger');
      ready(await agentOf(config).look());
      expect([release(), versions()]).toEqual(['1.0.0', ['1.0.0', '2.0.0']]);
      await other.remove();
      ready(await upgraded.look());
      expect(await pod.status()).toBe(running);
      await pod.remove();
      await expect.poll(async () => (await upgraded.look()) && versions(), { timeout: 120_000 }).toEqual(['2.0.0']);
      ready(await agentOf(config).look());
    });

    test('puts back what containerd does not take, says so, and tries again only when something changed', async () => {
      const files = containerd.files();
      const { pid } = containerd;
      const refusing = join(work, 'refusing');
      writeFileSync(
        refusing,
        `#!/bin/sh\ncase $* in *dump*) echo 'bad key at line 7' >&2; exit 1;; esac\nexec ${program} "$@"\n`,
        {
          mode: 0o755,
        },
      );
      const settings = configuration({
        prefix: join(work, 'h/elsewhere'),
        containerd: { ...config.containerd, program: refusing },
      });
      const agent = agentOf(settings);
      const status = await agent.look();
      expect(status.failure).toMatchObject({ stage: 'containerd', error: { code: 'PREREQUISITE' } });
      expect(describeStatus(status)).toMatch(
        /did not take the runtime's configuration[\s\S]*bad key at line 7[\s\S]*to do: /,
      );
      expect(node.serving).toBe(false);
      expect(containerd.files()).toEqual(files);
      expect(containerd.pid).toBe(pid);
      expect((await agent.look()).failure?.error).toBe(status.failure?.error);
      ready(await agentOf(config).look());
      expect(node.serving).toBe(true);
      rmSync(join(work, 'h/elsewhere'), { recursive: true });
    });

    test('starts a containerd with the old configuration where it does not come up with the new one', async () => {
      const files = containerd.files();
      const failing = join(work, 'failing');
      const marker = join(work, 'failed-once');
      writeFileSync(
        failing,
        `#!/bin/sh\n[ -e ${marker} ] && exec ${containerd.restartScript}\ntouch ${marker}\nkill ${containerd.pid}\n`,
        {
          mode: 0o755,
        },
      );
      const settings = configuration({
        prefix: join(work, 'h/elsewhere'),
        containerd: { ...config.containerd, restart: { command: [failing] }, readyTimeoutSeconds: 30 },
      });
      const status = await agentOf(settings).look();
      expect(describeStatus(status)).toMatch(
        /put back, and containerd serves again[\s\S]*does not serve after its restart/,
      );
      expect(containerd.files()).toEqual(files);
      await containerd.cri.runtime.version({}, { timeoutMs: 5000 });
      ready(await agentOf(config).look());
      rmSync(join(work, 'h/elsewhere'), { recursive: true });
    });

    test('uninstalls only without pods, or by force, and leaves nothing', async () => {
      const pod = await runPod('last');
      const installation = new NodeInstallation(config);
      await expect(uninstall(installation, node, { force: false, waitMs: 0 }, quiet)).rejects.toThrow(
        /1 sealed pods run on this node/,
      );
      expect(await pod.status()).toBe(running);
      const services = [...processesOf('adaptor'), ...processesOf('snapshotter')];
      await uninstall(installation, node, { force: true, waitMs: 0 }, quiet);
      expect(node.serving).toBeUndefined();
      expect(traces()).toEqual(before);
      expect(services).toHaveLength(2);
      expect(
        runningProcesses().filter(({ arguments: words }) => words.some((word) => word.includes(`${work}/h/`))),
      ).toEqual([]);
      const { items } = await containerd.cri.runtime.listPodSandbox({}, { timeoutMs: 5000 });
      expect(items).toEqual([]);
      await expect(runPod('after')).rejects.toThrow(/sealpod/);
      await uninstall(installation, node, { force: false, waitMs: 0 }, quiet);
      expect(traces()).toEqual(before);
      expect([lstatSync(work).isDirectory(), isRunning({ pid: services[0]?.pid ?? 0, startTime: '' })]).toEqual([
        true,
        false,
      ]);
    });
  },
);
