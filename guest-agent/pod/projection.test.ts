import { createHash } from 'node:crypto';
import { create, fromJson } from '@bufbuild/protobuf';
import {
  AddARPNeighborsRequestSchema,
  CopyFileRequestSchema,
  CreateContainerRequestSchema,
  ExecProcessRequestSchema,
  UpdateInterfaceRequestSchema,
  WriteStreamRequestSchema,
} from '@sealpod/protocol/gen/kata/agent_pb';
import { describe, expect, it } from 'vitest';
import { projectRequest } from './projection.ts';

/** As the policy engine reads it. */
function project(...arguments_: Parameters<typeof projectRequest>): unknown {
  return JSON.parse(JSON.stringify(projectRequest(...arguments_)));
}

describe('requests as policies see them', () => {
  it('has every field of CreateContainerRequest, absent messages null, lists and text empty', () => {
    expect(project(CreateContainerRequestSchema, create(CreateContainerRequestSchema))).toEqual({
      container_id: '',
      exec_id: '',
      string_user: null,
      devices: [],
      storages: [],
      OCI: null,
      sandbox_pidns: false,
      shared_mounts: [],
      stdin_port: null,
      stdout_port: null,
      stderr_port: null,
    });
  });

  it('writes the specification under the names of the proto, with type_ in mounts and Type in namespaces', () => {
    const request = fromJson(CreateContainerRequestSchema, {
      containerId: 'c',
      stdinPort: 0,
      storages: [{ driver: 'local', fsGroup: { groupId: 7 } }],
      OCI: {
        Version: '1.1.0',
        Process: { Args: ['a'], User: { UID: 5 }, Rlimits: [{ Type: 'RLIMIT_CORE', Hard: '18446744073709551615' }] },
        Root: { Path: '/r' },
        Mounts: [{ destination: '/proc', type: 'proc' }],
        Annotations: { 'a.b/c': 'd' },
        Linux: {
          Namespaces: [{ Type: 'ipc' }],
          Sysctl: { 'net.x': '1' },
          Seccomp: { Syscalls: [{ Names: ['read'], errnoret: 4 }, { Names: ['write'] }] },
        },
      },
    });
    const text = JSON.stringify(projectRequest(CreateContainerRequestSchema, request));
    // Above 2^53, so it must come out digit by digit.
    expect(text).toContain('"Hard":18446744073709551615');
    expect(JSON.parse(text)).toMatchObject({
      stdin_port: 0,
      stdout_port: null,
      storages: [
        {
          driver: 'local',
          driver_options: [],
          source: '',
          fstype: '',
          options: [],
          mount_point: '',
          fs_group: { group_id: 7, group_change_policy: 0 },
          shared: false,
        },
      ],
      OCI: {
        Version: '1.1.0',
        Hostname: '',
        Hooks: null,
        Solaris: null,
        Windows: null,
        Annotations: { 'a.b/c': 'd' },
        Process: {
          Terminal: false,
          ConsoleSize: null,
          User: { UID: 5, GID: 0, AdditionalGids: [], Username: '' },
          Args: ['a'],
          Env: [],
          Cwd: '',
          Capabilities: null,
          NoNewPrivileges: false,
          ApparmorProfile: '',
          OOMScoreAdj: 0,
          SelinuxLabel: '',
        },
        Root: { Path: '/r', Readonly: false },
        Mounts: [{ destination: '/proc', source: '', type_: 'proc', options: [] }],
        Linux: {
          UIDMappings: [],
          GIDMappings: [],
          Sysctl: { 'net.x': '1' },
          Resources: null,
          CgroupsPath: '',
          Namespaces: [{ Type: 'ipc', Path: '' }],
          Devices: [],
          RootfsPropagation: '',
          MaskedPaths: [],
          ReadonlyPaths: [],
          MountLabel: '',
          IntelRdt: null,
          Seccomp: {
            Syscalls: [
              { Names: ['read'], ErrnoRet: { errnoret: 4 } },
              { Names: ['write'], ErrnoRet: null },
            ],
          },
        },
      },
    });
  });

  it('keeps the names of the network messages', () => {
    const update = fromJson(UpdateInterfaceRequestSchema, {
      interface: { IPAddresses: [{ address: '10.0.0.2', family: 'v6' }], mtu: '1500' },
    });
    expect(project(UpdateInterfaceRequestSchema, update)).toEqual({
      interface: {
        device: '',
        name: '',
        IPAddresses: [{ family: 1, address: '10.0.0.2', mask: '' }],
        mtu: 1500,
        hwAddr: '',
        devicePath: '',
        type_: '',
        raw_flags: 0,
      },
    });
    const neighbours = fromJson(AddARPNeighborsRequestSchema, { neighbors: { ARPNeighbors: [{ state: 128 }] } });
    expect(project(AddARPNeighborsRequestSchema, neighbours)).toEqual({
      neighbors: { ARPNeighbors: [{ toIPAddress: null, device: '', lladdr: '', state: 128, flags: 0 }] },
    });
  });

  it('writes bytes as numbers, and an exec with its process', () => {
    expect(
      project(WriteStreamRequestSchema, create(WriteStreamRequestSchema, { data: Uint8Array.of(0, 255) })),
    ).toEqual({
      container_id: '',
      exec_id: '',
      data: [0, 255],
    });
    const exec = fromJson(ExecProcessRequestSchema, { containerId: 'c', process: { Args: ['sh'] } });
    expect(project(ExecProcessRequestSchema, exec)).toMatchObject({
      container_id: 'c',
      process: { Args: ['sh'] },
      string_user: null,
    });
  });

  it.each([
    [0o100644, 'Regular', ''],
    [0o040755, 'Directory', ''],
    [0o120777, 'Symlink', '..data'],
    [0o060000, 'Unknown', ''],
  ])('shows CopyFile of mode %o as %s and never its content', (fileMode, file_type, symlink_target) => {
    const request = create(CopyFileRequestSchema, {
      path: '/p',
      fileMode,
      data: Buffer.from('..data'),
      fileSize: 6n,
      uid: -1,
    });
    expect(project(CopyFileRequestSchema, request)).toEqual({
      path: '/p',
      file_type,
      symlink_target,
      file_size: 6,
      file_mode: fileMode,
      dir_mode: 0,
      uid: -1,
      gid: 0,
      offset: 0,
      data_sha256: createHash('sha256').update('..data').digest('hex'),
    });
  });
});
