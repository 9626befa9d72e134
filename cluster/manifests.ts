import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import type { ClusterAddresses } from './addresses.ts';
import type { ClusterLayout } from './layout.ts';

/** The Service behind which the DNS program of the host answers. It has no selector: its endpoint is the node. */
export function coreManifests(addresses: ClusterAddresses): readonly object[] {
  const ports = [
    { name: 'dns', port: 53, protocol: 'UDP' },
    { name: 'dns-tcp', port: 53, protocol: 'TCP' },
  ];
  const metadata = { name: 'kube-dns', namespace: 'kube-system' };
  return [
    { apiVersion: 'v1', kind: 'Service', metadata, spec: { clusterIP: addresses.dnsService, ports } },
    {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { ...metadata, labels: { 'kubernetes.io/service-name': 'kube-dns' } },
      addressType: 'IPv4',
      endpoints: [{ addresses: [addresses.node], conditions: { ready: true } }],
      ports,
    },
  ];
}

/** Applies manifests with kubectl. @throws SealpodError INTERNAL with kubectl's own text */
export function applyManifests(layout: ClusterLayout, programs: string, manifests: readonly object[]): void {
  const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: manifests });
  try {
    execFileSync(join(programs, 'kubectl'), ['--kubeconfig', join(layout.pki, 'admin.conf'), 'apply', '-f', '-'], {
      input: list,
      stdio: ['pipe', 'pipe', 'pipe'],
    });
  } catch (cause) {
    throw new SealpodError('INTERNAL', 'kubectl apply failed', { cause });
  }
}
