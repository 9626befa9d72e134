import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AgentPolicy } from '../../guest-agent/agent-policy/agent-policy.ts';
import { image, RecordedPods } from './recorded-pods.ts';
import { type PolicyInput, requestsOf } from './requests.ts';

/*
 * What a host may try on a pod's isolation: each request is one that a generated policy allows, with one thing more, and is
 * refused by the rules of the guest through the guest's engine, by the name of the field.
 */

interface Mount {
  destination: string;
  source: string;
  type_: string;
  options: string[];
}
interface Storage {
  driver: string;
  source: string;
  fstype: string;
  mount_point: string;
  options: string[];
  driver_options: string[];
}
/** The parts of a CreateContainerRequest, as policies see it, that the cases change. */
interface Create {
  devices: object[];
  shared_mounts: object[];
  sandbox_pidns: boolean;
  storages: Storage[];
  OCI: {
    Hooks: object | null;
    Mounts: Mount[];
    Process: {
      NoNewPrivileges: boolean;
      Capabilities: Record<'Bounding' | 'Effective' | 'Permitted' | 'Inheritable' | 'Ambient', string[]>;
    };
    Linux: {
      Devices: object[];
      Seccomp: object | null;
      Sysctl: Record<string, string>;
      MaskedPaths: string[];
      ReadonlyPaths: string[];
      UIDMappings: object[];
      RootfsPropagation: string;
      Namespaces: { Type: string; Path: string }[];
      Resources: { Devices: object[]; HugepageLimits: object[] };
    };
  };
}
type Change = (create: Create) => void;

/** Puts other members in place of those of a part of the request. */
function set<T extends object>(pick: (create: Create) => T, to: Partial<T>): Change {
  return (create) => {
    Object.assign(pick(create), to);
  };
}

const mount = (destination: string, source: string, type_ = 'bind', options = ['rbind', 'rw']): Change => {
  return ({ OCI }) => void OCI.Mounts.push({ destination, source, type_, options });
};
const change = (destination: string, to: Partial<Mount>): Change => {
  return ({ OCI }) => {
    const found = OCI.Mounts.find((item) => item.destination === destination);
    if (found === undefined) throw new Error(`no mount at ${destination}`);
    Object.assign(found, to);
  };
};
const storage = (of: Partial<Storage>): Change => {
  return ({ storages }) => {
    const empty = { driver: '', source: '', fstype: '', mount_point: '/x', options: [], driver_options: [] };
    storages.push({ ...empty, ...of });
  };
};
const capability = (list: keyof Create['OCI']['Process']['Capabilities'], name: string): Change => {
  return ({ OCI }) => void OCI.Process.Capabilities[list].push(name);
};
const rule = { Allow: true, Type: 'a', Major: -1, Minor: -1, Access: 'rwm' };
const disk = { Path: '/dev/vda', Type: 'b', Major: 254, Minor: 0, FileMode: 0o660, UID: 0, GID: 0 };

const ofContainer: readonly (readonly [string, string, Change])[] = [
  ['device: of the agent protocol', 'devices', ({ devices }) => void devices.push({ id: 'x', type_: 'blk' })],
  ['device: the disk of the guest', 'OCI.Linux.Devices', ({ OCI }) => void OCI.Linux.Devices.push(disk)],
  [
    'device: every device by its cgroup',
    'OCI.Linux.Resources.Devices',
    ({ OCI }) => void OCI.Linux.Resources.Devices.push(rule),
  ],
  ['device: as a block storage', 'storages[/x]', storage({ driver: 'blk', source: '0001:00', fstype: 'ext4' })],
  ['capability: SYS_ADMIN in the bounding set', 'Capabilities.Bounding', capability('Bounding', 'CAP_SYS_ADMIN')],
  ['capability: NET_ADMIN in the effective set', 'Capabilities.Effective', capability('Effective', 'CAP_NET_ADMIN')],
  ['capability: SYS_PTRACE in the permitted set', 'Capabilities.Permitted', capability('Permitted', 'CAP_SYS_PTRACE')],
  ['capability: ambient, which programs inherit', 'Capabilities.Ambient', capability('Ambient', 'CAP_NET_RAW')],
  ['capability: inheritable', 'Capabilities.Inheritable', capability('Inheritable', 'CAP_NET_RAW')],
  ['capability: by set-id programs', 'NoNewPrivileges', set(({ OCI }) => OCI.Process, { NoNewPrivileges: false })],
  ['mount: the root of the guest', 'OCI.Mounts[/host].destination', mount('/host', '/')],
  ['mount: the memory of other containers', 'OCI.Mounts[/p].destination', mount('/p', 'proc', 'proc', [])],
  [
    'mount: over a program',
    'OCI.Mounts[/bin/sh].destination',
    mount('/bin/sh', '/run/kata-containers/shared/containers/x'),
  ],
  [
    'mount: another file for a declared one',
    'OCI.Mounts[/etc/conf].source',
    change('/etc/conf', { source: '/run/kata-containers' }),
  ],
  ['mount: another type', 'OCI.Mounts[/scratch].type', change('/scratch', { type_: 'overlay' })],
  [
    'mount: shared with the guest',
    'OCI.Mounts[/scratch].options',
    change('/scratch', { options: ['rbind', 'rshared'] }),
  ],
  [
    'mount: writable where the pod says not',
    'OCI.Mounts[/etc/cred].options',
    change('/etc/cred', { options: ['rbind', 'rw'] }),
  ],
  ['mount: shared memory with the host', 'shared_mounts', (create) => void create.shared_mounts.push({ name: 'x' })],
  ['mount: a file system of the host', 'storages[/x]', storage({ driver: 'virtio-fs', source: 'kataShared' })],
  [
    'mount: a second image',
    'storages[image_guest_pull]',
    ({ storages }) => void storages.push(...storages.slice(0, 1)),
  ],
  ['mount: two at one place', 'OCI.Mounts: ', ({ OCI }) => void OCI.Mounts.push(...OCI.Mounts.slice(0, 1))],
  [
    'sysctl: of a container',
    'OCI.Linux.Sysctl',
    set(({ OCI }) => OCI.Linux, { Sysctl: { 'kernel.core_pattern': '|/x' } }),
  ],
  [
    'namespace: the guest’s mounts, by path',
    'OCI.Linux.Namespaces',
    ({ OCI }) => {
      OCI.Linux.Namespaces = OCI.Linux.Namespaces.map((item) =>
        item.Type === 'mount' ? { ...item, Path: '/proc/1/ns/mnt' } : item,
      );
    },
  ],
  [
    'namespace: no own mounts',
    'OCI.Linux.Namespaces',
    ({ OCI }) => {
      OCI.Linux.Namespaces = OCI.Linux.Namespaces.filter(({ Type }) => Type !== 'mount');
    },
  ],
  [
    'namespace: a user namespace',
    'OCI.Linux.UIDMappings',
    ({ OCI }) => void OCI.Linux.UIDMappings.push({ HostID: 0, ContainerID: 0, Size: 1 }),
  ],
  ['namespace: the processes of the pod', 'sandbox_pidns', set((create) => create, { sandbox_pidns: true })],
  ['kernel: an unmasked /proc', 'OCI.Linux.MaskedPaths', set(({ OCI }) => OCI.Linux, { MaskedPaths: [] })],
  ['kernel: a writable /proc/sys', 'OCI.Linux.ReadonlyPaths', set(({ OCI }) => OCI.Linux, { ReadonlyPaths: [] })],
  ['kernel: a program at the start', 'OCI.Hooks', set(({ OCI }) => OCI, { Hooks: { Prestart: [{ Path: '/x' }] } })],
  [
    'kernel: mounts that the guest would see',
    'OCI.Linux.RootfsPropagation',
    set(({ OCI }) => OCI.Linux, { RootfsPropagation: 'shared' }),
  ],
  // S-36: the guest has a filter of its own, so the host's could only be another one.
  ['system calls: an empty filter', 'OCI.Linux.Seccomp', set(({ OCI }) => OCI.Linux, { Seccomp: {} })],
  [
    'system calls: a filter that allows all',
    'OCI.Linux.Seccomp',
    ({ OCI }) => {
      OCI.Linux.Seccomp = { DefaultAction: 'SCMP_ACT_ALLOW', Architectures: [], Flags: [], Syscalls: [] };
    },
  ],
];

const ofSandbox: readonly (readonly [string, string, Change])[] = [
  [
    'sysctl: one that the pod does not set',
    'OCI.Linux.Sysctl[kernel.core_pattern]',
    ({ OCI }) => {
      OCI.Linux.Sysctl['kernel.core_pattern'] = '|/bin/sh';
    },
  ],
  [
    'sysctl: another value',
    'OCI.Linux.Sysctl[net.ipv4.ip_unprivileged_port_start]',
    ({ OCI }) => {
      OCI.Linux.Sysctl['net.ipv4.ip_unprivileged_port_start'] = '1024';
    },
  ],
  [
    'mount: an image for the pause container',
    'storages',
    ({ storages }) => {
      for (const item of storages) item.source = 'registry.test/evil:1';
    },
  ],
];

describe('S-35: what a pod did not ask for', () => {
  const pods = new RecordedPods();
  let agent: AgentPolicy;
  beforeAll(async () => {
    agent = await pods.start('full', await pods.policyOf('full', { namespace: 'default' }));
  });
  afterAll(() => pods.close());

  async function ask(of: AgentPolicy, name: string, apply: Change): Promise<string> {
    const { create } = await requestsOf(`full.${name}`, 'id1', image.reference, pods.node);
    const changed = structuredClone(create) as PolicyInput & Create;
    apply(changed);
    expect(changed, 'the case changes nothing').not.toEqual(create);
    return pods.decide(of, 'CreateContainerRequest', changed);
  }

  it('has at least 25 cases, and is allowed without them', async () => {
    expect(ofContainer.length + ofSandbox.length).toBeGreaterThanOrEqual(25);
    const { create } = await requestsOf('full.main', 'id0', image.reference, pods.node);
    expect(await pods.decide(agent, 'CreateContainerRequest', create)).toBe('allowed');
  });

  it.each(ofContainer)('%s: refused as %s', async (_what, field, apply) => {
    const answer = await ask(agent, 'main', apply);
    expect(answer).toContain(
      `CreateContainerRequest: ${field.startsWith('Cap') || field === 'NoNewPrivileges' ? 'OCI.Process.' : ''}${field}`,
    );
    expect(answer).toMatch(/: expected .+, actual .+; nearest allowed: container "main"/);
  });

  it.each(ofSandbox)('%s: refused as %s', async (_what, field, apply) => {
    const fresh = await AgentPolicy.create({
      engine: pods.engine,
      policy: await pods.policyOf('full', { namespace: 'default' }),
    });
    expect(await ask(fresh, 'sandbox', apply)).toContain(`CreateContainerRequest: ${field}`);
  });
});

describe('K-01: a container that is added to a running pod', () => {
  const pods = new RecordedPods();
  afterAll(() => pods.close());

  /** What the host asks for `kubectl debug`: the recorded `plain` under another name, with the environment it would have. */
  async function debugRequest(): Promise<PolicyInput> {
    const { create } = await requestsOf('bare.main', 'debug1', image.reference, pods.node);
    const key = 'io.kubernetes.cri.container-name';
    const text = JSON.stringify(create)
      .replaceAll(`"${key}":"main"`, `"${key}":"debugger"`)
      .replaceAll(String.raw`\"${key}\":\"main\"`, String.raw`\"${key}\":\"debugger\"`);
    return JSON.parse(text) as PolicyInput;
  }

  it('is refused by name where it was not declared', async () => {
    const agent = await pods.start('bare', await pods.policyOf('bare'));
    expect(await pods.decide(agent, 'CreateContainerRequest', await debugRequest())).toContain(
      'CreateContainerRequest: OCI.Annotations[io.kubernetes.cri.container-name]: expected ["main"], actual "debugger"',
    );
  });

  it('is allowed exactly as it was declared, and shares the sandbox, policy and initdata of all others', async () => {
    const declared = { ephemeralContainers: [{ name: 'debugger', image: 'localhost/app:1' }] };
    const agent = await pods.start('bare', await pods.policyOf('bare', declared));
    const request = await debugRequest();
    expect(await pods.decide(agent, 'CreateContainerRequest', request)).toBe('allowed');
    const other = structuredClone(request) as PolicyInput & Create & { container_id: string };
    other.OCI.Process.Capabilities.Bounding.push('CAP_SYS_ADMIN');
    expect(await pods.decide(agent, 'CreateContainerRequest', other)).toContain('Capabilities.Bounding');
  });
});
