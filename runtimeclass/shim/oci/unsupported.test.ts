import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { MountSpecification, Specification } from './specification.ts';
import { refuseUnsupported } from './unsupported.ts';

const uid = '11111111-2222-3333-4444-555555555555';
const annotations = { 'io.kubernetes.cri.sandbox-uid': uid, 'io.kubernetes.cri.sandbox-id': 'ab12' };
const namespaces = ['network', 'pid', 'ipc', 'mount'].map((type) => ({ type }));
const bind = (source: string): MountSpecification => ({ destination: '/x', source, type: 'bind', options: ['rbind'] });
const system: MountSpecification = { destination: '/sys', type: 'sysfs', options: ['nosuid', 'ro'] };
const withMounts = (...mounts: readonly MountSpecification[]): Specification => ({
  annotations,
  mounts: [system, ...mounts],
});

describe('what a machine of its own cannot have', () => {
  let pod = '';
  beforeAll(() => {
    pod = join(mkdtempSync(join(tmpdir(), 'sealpod-pods-')), 'pods', uid);
    mkdirSync(join(pod, 'volumes/kubernetes.io~configmap/settings'), { recursive: true });
    mkdirSync(join(pod, 'volumes/kubernetes.io~empty-dir/scratch'), { recursive: true });
  });
  afterAll(() => rmSync(join(pod, '../..'), { recursive: true }));

  it.each([
    ['network', /hostNetwork/],
    ['pid', /hostPID/],
    ['ipc', /hostIPC/],
  ])('a sandbox without a %s namespace of its own', (missing, text) => {
    const own = { annotations, linux: { namespaces } };
    expect(() => refuseUnsupported(own, 'pod_sandbox')).not.toThrow();
    const shared = { annotations, linux: { namespaces: namespaces.filter(({ type }) => type !== missing) } };
    expect(() => refuseUnsupported(shared, 'pod_sandbox')).toThrow(text);
  });

  it('a privileged container', () => {
    expect(() => refuseUnsupported(withMounts(), 'pod_container')).not.toThrow();
    const privileged = { annotations, mounts: [{ ...system, options: ['nosuid', 'rw'] }] };
    expect(() => refuseUnsupported(privileged, 'pod_container')).toThrow(/privileged/);
  });

  it('folders of the node, and volumes that writes would not reach', () => {
    const check = (source: string) => () => refuseUnsupported(withMounts(bind(source)), 'pod_container');
    expect(check('/etc')).toThrow(/hostPath/);
    expect(check(`/var/lib/kubelet/pods/another/volumes/kubernetes.io~configmap/x`)).toThrow(/hostPath/);
    expect(check(join(pod, 'volumes/kubernetes.io~csi/data'))).toThrow(/kind kubernetes.io~csi/);
    expect(check(join(pod, 'volume-subpaths/scratch/main/0'))).toThrow(/subPath/);
    for (const source of [
      'volumes/kubernetes.io~configmap/settings',
      'volumes/kubernetes.io~empty-dir/scratch',
      'volume-subpaths/settings/main/0',
      'etc-hosts',
      'containers/main/0a1b',
    ])
      expect(check(join(pod, source)), source).not.toThrow();
    expect(check('/run/containerd/sandboxes/ab12/resolv.conf')).not.toThrow();
    expect(check(`/var/lib/containerd/containers/${'a'.repeat(64)}/volumes/1`)).not.toThrow();
  });

  it('nothing of what is no pod', () => {
    expect(() => refuseUnsupported({ mounts: [bind('/etc')] }, 'single_container')).not.toThrow();
  });
});
