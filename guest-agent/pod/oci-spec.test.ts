import { fromJson, type JsonObject } from '@bufbuild/protobuf';
import { SpecSchema } from '@sealpod/protocol/gen/kata/oci_pb';
import { describe, expect, it } from 'vitest';
import { runtimeResources, runtimeSpec, type SpecContext } from './oci-spec.ts';

const context: SpecContext = {
  rootfs: '/run/kata-containers/c/rootfs',
  cgroupsPath: '/sealpod/c/container',
  bindSources: new Map([['/run/kata-containers/shared/containers/x', '/run/kata-containers/shared/containers/real']]),
  deviceRules: true,
};

/** As crun reads it. */
function convert(spec: JsonObject, more: Partial<SpecContext> = {}) {
  return JSON.parse(JSON.stringify(runtimeSpec(fromJson(SpecSchema, spec), { ...context, ...more })));
}

describe('OCI specification for crun', () => {
  it('converts what a container is made of', () => {
    const converted = convert({
      Version: '1.1.0',
      Process: {
        Terminal: true,
        ConsoleSize: { Height: 10, Width: 20 },
        User: { UID: 5, GID: 6, AdditionalGids: [7] },
        Args: ['a', 'b'],
        Env: ['A=1'],
        Cwd: '/w',
        Capabilities: { Bounding: ['CAP_KILL'] },
        Rlimits: [{ Type: 'RLIMIT_NOFILE', Hard: '18446744073709551615', Soft: '1024' }],
        NoNewPrivileges: true,
        OOMScoreAdj: '-997',
      },
      Root: { Path: '/from/the/host', Readonly: true },
      Mounts: [
        { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid'] },
        {
          destination: '/etc/hosts',
          type: 'bind',
          source: '/run/kata-containers/shared/containers/x',
          options: ['rbind'],
        },
      ],
      Annotations: { k: 'v' },
      Linux: { MaskedPaths: ['/proc/kcore'], ReadonlyPaths: ['/proc/sys'], RootfsPropagation: 'rprivate' },
    });
    expect(converted).toMatchObject({
      ociVersion: '1.0.2',
      process: {
        terminal: true,
        consoleSize: { height: 10, width: 20 },
        user: { uid: 5, gid: 6, additionalGids: [7] },
        args: ['a', 'b'],
        env: ['A=1'],
        cwd: '/w',
        capabilities: { bounding: ['CAP_KILL'], effective: [], inheritable: [], permitted: [], ambient: [] },
        noNewPrivileges: true,
        oomScoreAdj: -997,
      },
      root: { path: context.rootfs, readonly: true },
      mounts: [
        { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid'] },
        {
          destination: '/etc/hosts',
          type: 'bind',
          source: '/run/kata-containers/shared/containers/real',
          options: ['rbind'],
        },
      ],
      annotations: { k: 'v' },
      linux: { maskedPaths: ['/proc/kcore'], readonlyPaths: ['/proc/sys'], rootfsPropagation: 'rprivate' },
    });
  });

  it('takes no namespace, path, host name, hook, mapping, sysctl or group from the host', () => {
    const converted = convert({
      Hostname: 'host',
      Hooks: { Prestart: [{ Path: '/bin/hook' }] },
      Linux: {
        Namespaces: [{ Type: 'network', Path: '/proc/1/ns/net' }, { Type: 'ipc' }, { Type: 'user' }],
        UIDMappings: [{ HostID: 1, ContainerID: 0, Size: 1 }],
        Sysctl: { 'net.ipv4.ip_forward': '1' },
        CgroupsPath: '/somewhere/else',
      },
    });
    expect(Object.keys(converted).sort()).toEqual(['annotations', 'linux', 'mounts', 'ociVersion', 'root']);
    expect(converted.linux.namespaces).toEqual([{ type: 'mount' }, { type: 'pid' }, { type: 'cgroup' }]);
    expect(converted.linux.cgroupsPath).toBe('/sealpod/c/container');
    expect(JSON.stringify(converted)).not.toMatch(/hook|ip_forward|somewhere|idMappings/i);
  });

  it('denies devices unless each is named, and never allows all', () => {
    const rules = (devices: JsonObject[]) =>
      convert({ Linux: { Resources: { Devices: devices } } }).linux.resources.devices;
    const denyAll = { allow: false, access: 'rwm' };
    expect(convert({}).linux.resources.devices).toEqual([denyAll]);
    expect(rules([{ Allow: true, Access: 'rwm' }])).toEqual([denyAll]);
    expect(rules([{ Allow: true, Type: 'c', Major: '-1', Minor: '-1', Access: 'rwm' }])).toEqual([denyAll]);
    expect(rules([{ Allow: true, Type: 'c', Major: '10', Minor: '229', Access: 'rw' }])).toEqual([
      denyAll,
      { allow: true, type: 'c', major: 10, minor: 229, access: 'rw' },
    ]);
    expect(convert({}, { deviceRules: false }).linux.resources).toEqual({});
  });

  it('keeps a seccomp profile and writes 64-bit values digit by digit', () => {
    const spec = fromJson(SpecSchema, {
      Linux: {
        Seccomp: {
          DefaultAction: 'SCMP_ACT_ERRNO',
          Architectures: ['SCMP_ARCH_X86_64'],
          Syscalls: [
            {
              Names: ['personality'],
              Action: 'SCMP_ACT_ALLOW',
              errnoret: 1,
              Args: [{ Index: '0', Value: '18446744073709551615', Op: 'SCMP_CMP_EQ' }],
            },
          ],
        },
        Resources: {
          Memory: { Limit: '9223372036854771712' },
          CPU: { Shares: '2', Quota: '-1', Cpus: '0-1', Mems: '0' },
          Pids: { Limit: '5' },
          HugepageLimits: [{ Pagesize: '2MB', Limit: '3' }],
        },
      },
    });
    const text = JSON.stringify(runtimeSpec(spec, context));
    expect(text).toContain('"value":18446744073709551615');
    expect(text).toContain('"limit":9223372036854771712');
    expect(JSON.parse(text).linux).toMatchObject({
      seccomp: {
        defaultAction: 'SCMP_ACT_ERRNO',
        architectures: ['SCMP_ARCH_X86_64'],
        syscalls: [
          { names: ['personality'], action: 'SCMP_ACT_ALLOW', errnoRet: 1, args: [{ index: 0, op: 'SCMP_CMP_EQ' }] },
        ],
      },
      resources: {
        cpu: { shares: 2, quota: -1 },
        pids: { limit: 5 },
        hugepageLimits: [{ pageSize: '2MB', limit: 3 }],
      },
    });
  });

  it('leaves out the processors and memory nodes of the host, and binds what a shim calls `local`', () => {
    const resources = fromJson(SpecSchema, { Linux: { Resources: { CPU: { Cpus: '4-7', Mems: '1' } } } }).Linux
      ?.Resources;
    expect(resources && runtimeResources(resources)).toEqual({ cpu: {} });
    const { mounts } = convert({
      Mounts: [
        { destination: '/v', type: 'local', source: '/run/kata-containers/shared/containers/x', options: ['rbind'] },
      ],
    });
    expect(mounts).toEqual([
      { destination: '/v', type: 'bind', source: '/run/kata-containers/shared/containers/real', options: ['rbind'] },
    ]);
  });

  it('leaves limits out that are not set', () => {
    const resources = fromJson(SpecSchema, { Linux: { Resources: { Memory: {}, CPU: {}, Pids: {} } } }).Linux
      ?.Resources;
    expect(resources && runtimeResources(resources)).toEqual({ memory: {}, cpu: {} });
  });
});
