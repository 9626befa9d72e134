import { CreateSandboxRequestSchema, ExecProcessRequestSchema } from '@sealpod/protocol/gen/kata/agent_pb';
import { createRegoEngine } from '@sealpod/rego';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AgentPolicy } from '../../guest-agent/agent-policy/agent-policy.ts';
import { sharedMemoryStorage } from '../../runtimeclass/shim/mounts/storage.ts';
import { generatePolicy, type PolicyOptions } from '../../workload/agent-policy/policy.ts';
import type { WorkloadImage } from '../../workload/image/image.ts';
import { readManifests } from '../../workload/kubernetes/manifests.ts';
import { type ContainerRequests, fixture, input, NodeFiles, type PolicyInput, requestsOf } from './requests.ts';

/*
 * Generated policies against what our shim sends for containers that a real containerd and kubelet described, judged by the
 * guest's own policy engine in the guest's own projection. Each field of an allowed request is then changed.
 */

const digest = `sha256:${'b3'.repeat(32)}`;
const image: WorkloadImage = {
  reference: `localhost/app@${digest}`,
  entrypoint: ['/bin/sh', '-c', 'sleep 3600'],
  command: [],
  environment: ['PATH=/bin', 'FROM_IMAGE=yes'],
  workingDirectory: '',
  user: '',
};
const volumes = {
  conf: { mode: 'fast', 'app.conf': 'a = 1\n' },
  cred: { user: 'alice', token: 't0ken' },
  info: { labels: 'app="web"' },
  all: { mode: 'fast', 'app.conf': 'a = 1\n', user: 'alice', token: 'x' },
};
const engine = createRegoEngine({ workers: 1, timeoutMs: 10_000 });
const node = new NodeFiles(volumes);
afterAll(async () => {
  node.remove();
  await engine.close();
});

async function policyOf(pod: string, options: PolicyOptions = {}): Promise<string> {
  const manifests = readManifests(fixture('pods.yaml'));
  const found = manifests.templates.find(({ owner }) => owner.metadata.name === pod);
  if (found === undefined) throw new Error(`no pod ${pod}`);
  const resolve = async () => image;
  return (await generatePolicy(found.owner, found.template, manifests.configuration, resolve, options)).policy;
}

async function decide(policy: AgentPolicy, type: string, of: PolicyInput): Promise<string> {
  const { allowed, prints, failure } = await policy.decide(type, of);
  return allowed ? 'allowed' : `${prints.join('\n')}${failure?.message ?? ''}` || 'refused without a word';
}

const sandboxRequest = (hostname: string): PolicyInput =>
  input(CreateSandboxRequestSchema, {
    hostname,
    dns: ['nameserver 10.0.0.10', 'search default.svc.cluster.local svc.cluster.local', 'options ndots:5'],
    storages: [sharedMemoryStorage()],
    sandboxId: 'sandbox1',
  });

function sandboxIdOf(pod: string): string {
  const { annotations } = JSON.parse(fixture(`${pod}.sandbox.json`)) as { annotations: Record<string, string> };
  return annotations['io.kubernetes.cri.sandbox-id'] ?? '';
}

/** A guest whose sandbox is up, as far as its policy knows. */
async function startedPod(pod: string, policy: string): Promise<AgentPolicy> {
  const agent = await AgentPolicy.create({ engine, policy });
  const id = sandboxIdOf(pod);
  const { create } = await requestsOf(`${pod}.sandbox`, id, image.reference, node);
  expect(await decide(agent, 'CreateContainerRequest', create)).toBe('allowed');
  expect(await decide(agent, 'StartContainerRequest', { container_id: id })).toBe('allowed');
  return agent;
}

describe('pods as Kubernetes runs them', () => {
  it.each([
    ['full', 'full', ['proxy', 'main', 'plain']],
    ['bare', 'other', ['main']],
  ])('pod %s: all that kubelet and containerd ask is allowed', async (pod, hostname, containers) => {
    const agent = await startedPod(pod, await policyOf(pod, { namespace: 'default' }));
    expect(await decide(agent, 'CreateSandboxRequest', sandboxRequest(hostname))).toBe('allowed');
    for (const name of containers) {
      const { copies, create } = await requestsOf(`${pod}.${name}`, `id${name}`, image.reference, node);
      for (const copy of copies) expect(await decide(agent, 'CopyFileRequest', copy)).toBe('allowed');
      expect(await decide(agent, 'CreateContainerRequest', create), name).toBe('allowed');
    }
  });

  it('starts containers in the order of the pod, each once at a time', async () => {
    const agent = await startedPod('full', await policyOf('full'));
    const add = async (name: string, id: string) => {
      const { create } = await requestsOf(`full.${name}`, id, image.reference, node);
      expect(await decide(agent, 'CreateContainerRequest', create)).toBe('allowed');
    };
    const start = (container_id: string) => decide(agent, 'StartContainerRequest', { container_id });
    const remove = (container_id: string) => decide(agent, 'RemoveContainerRequest', { container_id });
    await add('main', 'main1');
    await add('proxy', 'proxy1');
    // The first init container, of which nothing was recorded, is the same but for its command.
    const { create } = await requestsOf('full.proxy', 'prepare1', image.reference, node);
    const key = 'io.kubernetes.cri.container-name';
    const text = JSON.stringify(create)
      .replaceAll(`"${key}":"proxy"`, `"${key}":"prepare"`)
      .replaceAll(String.raw`\"${key}\":\"proxy\"`, String.raw`\"${key}\":\"prepare\"`)
      .replace('["/bin/sh","-c","sleep 3600"]', '["/bin/true"]');
    expect(await decide(agent, 'CreateContainerRequest', JSON.parse(text) as PolicyInput)).toBe('allowed');
    expect(await start('main1')).toContain('main after container prepare');
    expect(await start('proxy1')).toContain('proxy after container prepare');
    expect(await start('prepare1')).toBe('allowed');
    expect(await remove('prepare1')).toBe('allowed');
    expect(await start('main1')).toContain('main after container proxy');
    expect(await start('proxy1')).toBe('allowed');
    expect(await start('main1')).toBe('allowed');
    // A second one may be created (its image has to be pulled meanwhile), but not run beside the first.
    await add('main', 'main2');
    expect(await start('main2')).toContain('one container main at a time');
    expect(await remove('main1')).toBe('allowed');
    expect(await start('main2')).toBe('allowed');
    expect(await start('unknown')).toContain('a container that was created');
  });

  it('refuses another pod name, namespace, host name, and a second sandbox', async () => {
    const policy = await policyOf('full', { namespace: 'default' });
    const agent = await AgentPolicy.create({ engine, policy });
    const { create } = await requestsOf('full.sandbox', 'sandbox1', image.reference, node);
    for (const [key, value] of [
      ['sandbox-name', 'fuller'],
      ['sandbox-namespace', 'other'],
    ]) {
      const changed = structuredClone(create) as { OCI: { Annotations: Record<string, string> } };
      changed.OCI.Annotations[`io.kubernetes.cri.${key}`] = value ?? '';
      expect(await decide(agent, 'CreateContainerRequest', changed)).toContain(`io.kubernetes.cri.${key}`);
    }
    expect(await decide(agent, 'CreateSandboxRequest', sandboxRequest('evil'))).toContain('hostname');
    expect(await decide(agent, 'CreateContainerRequest', create)).toBe('allowed');
    const second = await requestsOf('full.sandbox', 'sandbox2', image.reference, node);
    expect(await decide(agent, 'CreateContainerRequest', second.create)).toContain('container_id');
    const main = await requestsOf('full.main', 'm', image.reference, node);
    const moved = structuredClone(main.create) as { OCI: { Annotations: Record<string, string> } };
    moved.OCI.Annotations['io.kubernetes.cri.sandbox-uid'] = 'other';
    expect(await decide(agent, 'CreateContainerRequest', moved)).toContain('sandbox-uid');
  });
});

/** What a policy leaves to the host, because it changes nothing in the guest but how much it may use. */
const free = [
  /^OCI\.Linux\.Resources\.(Memory|CPU)/,
  /^OCI\.Process\.Rlimits/,
  // The guest has cgroups of its own.
  /^OCI\.Linux\.CgroupsPath/,
  /^OCI\.Annotations\.io\.katacontainers\.pkg\.oci\.bundle_path$/,
  /^OCI\.Annotations\.io\.kubernetes\.cri\.sandbox-(log-directory|cpu-.*|memory)$/,
];

/** Each leaf of a JSON value: its path, and the value with this leaf changed. */
function* mutations(value: unknown, path: readonly (string | number)[] = []): Generator<[string, unknown]> {
  const name = path.join('.');
  if (Array.isArray(value)) {
    yield [
      name,
      [...value, value.length > 0 && typeof value[0] === 'object' ? { ...value[0], strange: 1 } : 'strange'],
    ];
    for (const [index, item] of value.entries()) {
      yield [`${name}.-${index}`, value.toSpliced(index, 1)];
      for (const [where, changed] of mutations(item, [...path, index])) yield [where, value.with(index, changed)];
    }
  } else if (typeof value === 'object' && value !== null) {
    yield [name, null];
    for (const [key, item] of Object.entries(value)) {
      for (const [where, changed] of mutations(item, [...path, key])) yield [where, { ...value, [key]: changed }];
    }
  } else if (typeof value === 'string') yield [name, `${value}/strange`];
  else if (typeof value === 'number') yield [name, 123_456_789];
  else if (typeof value === 'boolean') yield [name, !value];
  else yield [name, 'strange'];
}

describe('each field of an allowed request, changed, is refused by its name', () => {
  let policy: string;
  let main: ContainerRequests;
  beforeAll(async () => {
    policy = await policyOf('full', { namespace: 'default' });
    main = await requestsOf('full.main', 'id1', image.reference, node);
  });

  it('CreateContainerRequest', async () => {
    const agent = await startedPod('full', policy);
    const accepted: string[] = [];
    const unnamed: string[] = [];
    let count = 0;
    for (const [path, changed] of mutations(main.create)) {
      if (path === '' || free.some((pattern) => pattern.test(path))) continue;
      count++;
      const answer = await decide(agent, 'CreateContainerRequest', changed as PolicyInput);
      const [, field = ''] = /^(?:OCI\.(?:Process\.|Linux\.)?)?([A-Za-z_]+)/.exec(path) ?? [];
      if (answer === 'allowed') {
        accepted.push(path);
        const { container_id } = changed as { container_id: string };
        expect(await decide(agent, 'RemoveContainerRequest', { container_id })).toBe('allowed');
      }
      // A fact that is not there at all makes the whole rule undefined: refused without a word.
      else if (changed !== null && !answer.includes(field) && answer !== 'refused without a word')
        unnamed.push(`${path}: ${answer}`);
    }
    expect(count).toBeGreaterThan(350);
    expect(unnamed).toEqual([]);
    // Removing these takes something from the container, which the host can do anyway by not starting it.
    expect(accepted.filter((path) => !isHarmless(path, main.create))).toEqual([]);
  });

  it('tells rule, field, expected, actual, and the nearest that is allowed', async () => {
    const agent = await startedPod('full', policy);
    const changed = structuredClone(main.create) as { OCI: { Process: { Args: string[]; Env: string[] } } };
    changed.OCI.Process.Args = ['/bin/evil'];
    changed.OCI.Process.Env = [...changed.OCI.Process.Env, 'LD_PRELOAD=/evil.so'];
    const answer = await decide(agent, 'CreateContainerRequest', changed);
    expect(answer).toMatch(
      /CreateContainerRequest: OCI\.Process\.Args: expected \[.*\/bin\/sh.*\], actual \["\/bin\/evil"\]; nearest allowed: container "main"/,
    );
    expect(answer).toMatch(
      /OCI\.Process\.Env\[LD_PRELOAD\]: expected "no such variable", actual "LD_PRELOAD=\/evil\.so"/,
    );
  });

  it('CopyFileRequest: folder, volume, type, mode, links, and the content of a ConfigMap by its key', async () => {
    const agent = await startedPod('full', policy);
    const copy = (end: string) => {
      const found = main.copies.find(({ path }) => String(path).endsWith(end));
      if (found === undefined) throw new Error(`nothing was copied to ${end}`);
      return found;
    };
    const file = copy('-conf/..2026_11_24_13_22_11.1234567890/mode');
    const ask = (change: PolicyInput, of = file) => decide(agent, 'CopyFileRequest', { ...of, ...change });
    expect(await ask({})).toBe('allowed');
    const path = String(file['path']);
    expect(await ask({ data_sha256: '00'.repeat(32) })).toContain(
      'content of ..2026_11_24_13_22_11.1234567890/mode in volume',
    );
    expect(await ask({ file_size: 5 })).toContain('content of');
    expect(await ask({ offset: 1 })).toContain('content of');
    expect(await ask({ path: path.replace('/mode', '/other') })).toContain('content of');
    expect(await ask({ path: path.replace('-conf/', '-evil/') })).toContain('a volume of the pod');
    expect(await ask({ path: path.replace('/mode', '/../mode') })).toContain(
      'below /run/kata-containers/shared/containers',
    );
    expect(await ask({ path: '/etc/passwd' })).toContain('below');
    expect(await ask({ file_type: 'Unknown' })).toContain('file_type');
    expect(await ask({ file_mode: 0o104755 })).toContain('file_mode');
    expect(await ask({ file_size: -1 })).toContain('file_size');
    const link = copy('-conf/mode');
    expect(await ask({}, link)).toBe('allowed');
    expect(await ask({ symlink_target: '..data/app.conf' }, link)).toContain('content of mode in volume');
    expect(await ask({ symlink_target: '/etc/shadow' }, copy('-cred/token'))).toContain('content of');
    expect(await ask({ symlink_target: '../../id2-0123456789abcdef-conf' }, copy('-cred/token'))).toContain(
      'content of',
    );
    expect(await ask({ data_sha256: '00'.repeat(32) }, copy('-1'))).toContain('content of  in volume');
    // What was not known when the policy was made cannot be compared.
    expect(await ask({ data_sha256: '00'.repeat(32) }, copy('1234567890/labels'))).toBe('allowed');
    // Upstream's agent tells no digest.
    const { data_sha256: _, ...upstream } = file;
    expect(await decide(agent, 'CopyFileRequest', upstream)).toBe('allowed');
    expect(await decide(agent, 'CopyFileRequest', { ...upstream, file_size: 9 })).toContain('content of');
  });

  it('ExecProcessRequest: probes and hooks, as the container they belong to, and nothing else', async () => {
    const agent = await startedPod('full', policy);
    expect(await decide(agent, 'CreateContainerRequest', main.create)).toBe('allowed');
    const { OCI } = main.create as { OCI: { Process: PolicyInput } };
    const exec = (change: PolicyInput, container_id = 'id1'): PolicyInput => ({
      ...input(ExecProcessRequestSchema, { containerId: container_id, execId: 'e1' }),
      process: { ...OCI.Process, Args: ['/bin/true'], ...change },
    });
    const ask = (change: PolicyInput) => decide(agent, 'ExecProcessRequest', exec(change));
    expect(await ask({})).toBe('allowed');
    expect(await ask({ Args: ['/bin/echo', 'stop'] })).toBe('allowed');
    expect(await ask({ Args: ['/bin/sh'] })).toContain('process.Args');
    expect(await ask({ User: { UID: 0, GID: 0, AdditionalGids: [], Username: '' } })).toContain('process.User.UID');
    expect(await ask({ Cwd: '/' })).toContain('process.Cwd');
    expect(await ask({ Env: ['LD_PRELOAD=/x'] })).toContain('process.Env[LD_PRELOAD]');
    expect(await ask({ NoNewPrivileges: false })).toContain('process.NoNewPrivileges');
    expect(await ask({ Terminal: true })).toContain('process.Terminal');
    expect(
      await ask({
        Capabilities: { Bounding: ['CAP_SYS_ADMIN'], Effective: [], Permitted: [], Inheritable: [], Ambient: [] },
      }),
    ).toContain('process.Capabilities');
    expect(await decide(agent, 'ExecProcessRequest', exec({}, 'none'))).toContain('a container that was created');
    const write = { container_id: 'id1', exec_id: '', data: [1] };
    expect(await decide(agent, 'WriteStreamRequest', write)).toContain('stdin: true');
    const plain = await requestsOf('full.plain', 'id2', image.reference, node);
    expect(await decide(agent, 'CreateContainerRequest', plain.create)).toBe('allowed');
    expect(await decide(agent, 'WriteStreamRequest', { ...write, container_id: 'id2' })).toBe('allowed');
    expect(await decide(agent, 'WriteStreamRequest', { ...write, container_id: 'id2', exec_id: 'e1' })).toContain(
      'stdin',
    );
  });

  it.each([
    ['SetPolicyRequest', { policy: 'package agent_policy' }],
    ['PauseContainerRequest', { container_id: 'id1' }],
    ['UpdateInterfaceRequest', { interface: { name: 'lo', device: 'lo', hwAddr: '' } }],
    ['UpdateRoutesRequest', { routes: { Routes: [{ device: 'lo', dest: '', source: '', gateway: '' }] } }],
    ['UpdateRoutesRequest', { routes: { Routes: [{ device: 'eth0', dest: '127.0.0.0/8', source: '', gateway: '' }] } }],
    [
      'AddARPNeighborsRequest',
      { neighbors: { ARPNeighbors: [{ device: 'eth0', state: 1, lladdr: '', toIPAddress: null }] } },
    ],
    ['GetDiagnosticDataRequest', { log_type: 'kernel', container_id: 'id1' }],
    ['UpdateContainerRequest', { container_id: 'id1', resources: { Devices: [{}], BlockIO: null, Network: null } }],
  ])('%s is refused with a word', async (type, of) => {
    const agent = await startedPod('full', policy);
    expect(await decide(agent, type, of)).toContain(`${type}: `);
  });

  it('allows the network of a pod, limits that change, logs and the end message', async () => {
    const agent = await startedPod('full', policy);
    for (const [type, of] of [
      ['UpdateInterfaceRequest', { interface: { name: 'eth0', device: 'eth0', hwAddr: '02:00:00:00:00:01' } }],
      ['UpdateRoutesRequest', { routes: { Routes: [{ device: 'eth0', dest: '', source: '', gateway: '10.0.0.1' }] } }],
      [
        'AddARPNeighborsRequest',
        {
          neighbors: {
            ARPNeighbors: [
              { device: 'eth0', state: 128, lladdr: '02:00:00:00:00:02', toIPAddress: { address: '10.0.0.1' } },
            ],
          },
        },
      ],
      ['GetDiagnosticDataRequest', { log_type: 'termination_log', container_id: 'id1' }],
      ['ReadStreamRequest', { container_id: 'id1', exec_id: '', len: 10 }],
      ['UpdateContainerRequest', { container_id: 'id1', resources: { Devices: [], BlockIO: null, Network: null } }],
    ] as const) {
      expect(await decide(agent, type, of), type).toBe('allowed');
    }
  });
});

/** Mutations that leave the container with less than it may have, or change nothing that the guest uses. */
function isHarmless(path: string, of: PolicyInput): boolean {
  const { OCI } = of as { OCI: { Process: { Env: string[] }; Mounts: { destination: string }[] } };
  const variable = /^OCI\.Process\.Env\.(-?)(\d+)$/.exec(path);
  if (variable !== null) {
    const name = OCI.Process.Env[Number(variable[2])]?.split('=')[0] ?? '';
    // Addresses of Services may be missing; what a Secret holds is for the API server to say.
    return variable[1] === '-' ? /^(HOSTNAME$|KUBERNETES_|WEB_)/.test(name) : ['TOKEN', 'user', 'token'].includes(name);
  }
  const mount = /^OCI\.Mounts\.-(\d+)$/.exec(path);
  if (mount !== null) {
    const destination = OCI.Mounts[Number(mount[1])]?.destination ?? '';
    return /^\/(proc|dev|sys)|^\/etc\/(hosts|hostname|resolv\.conf)$|serviceaccount$/.test(destination);
  }
  return [
    /^OCI\.Mounts\.\d+\.options\.-\d+$/,
    /^OCI\.Linux\.(MaskedPaths|ReadonlyPaths)$/,
    // Masked by containerd beyond what has to be: interrupts and powercap.
    /^OCI\.Linux\.MaskedPaths\.-?(2|11)$/,
    /^storages\.\d+\.options\.-\d+$/,
  ].some((pattern) => pattern.test(path));
}

describe('options of the generator', () => {
  it('no logs, any command, Pod Security restricted in the guest', async () => {
    const silent = await startedPod('bare', await policyOf('bare', { allowLogs: false, allowExec: true }));
    expect(await decide(silent, 'ReadStreamRequest', { container_id: 'a', exec_id: '' })).toContain('--no-logs');
    expect(await decide(silent, 'WriteStreamRequest', { container_id: 'a', exec_id: 'e' })).toBe('allowed');
    await expect(policyOf('bare', { podSecurity: 'restricted' })).rejects.toMatchObject({ code: 'POLICY_DENY' });
    // Where a policy's data were made laxer than the standard, the guest still holds to it.
    const text = (await policyOf('bare')).replace('"security": null', '"security": "restricted"');
    const strict = await startedPod('bare', text);
    const { create } = await requestsOf('bare.main', 'm', image.reference, node);
    const answer = await decide(strict, 'CreateContainerRequest', create);
    for (const field of ['NoNewPrivileges', 'User.UID', 'Capabilities'])
      expect(answer).toContain(`${field} (restricted)`);
  });

  it('G-14: no Secret stands in a policy', async () => {
    const policy = await policyOf('full');
    for (const secret of ['t0ken', 'alice']) expect(policy).not.toContain(secret);
  });
});
