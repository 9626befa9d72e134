import { readFileSync } from 'node:fs';
import type { ClusterAddresses } from './addresses.ts';
import { type ClusterPki, metricsService } from './pki.ts';

/** What makes the API server ask the metrics server, a program of the host, for `metrics.k8s.io`. */
export function metricsManifests(addresses: ClusterAddresses, pki: ClusterPki): readonly object[] {
  const { name, namespace } = metricsService;
  const metadata = { name, namespace };
  return [
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata,
      spec: { ports: [{ name: 'https', port: 443 }] },
    },
    {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { ...metadata, labels: { 'kubernetes.io/service-name': name } },
      addressType: 'IPv4',
      endpoints: [{ addresses: [addresses.node], conditions: { ready: true } }],
      // The proxy passes over ports without a name.
      ports: [{ name: 'https', port: addresses.ports.metrics, protocol: 'TCP' }],
    },
    {
      apiVersion: 'apiregistration.k8s.io/v1',
      kind: 'APIService',
      metadata: { name: 'v1beta1.metrics.k8s.io' },
      spec: {
        service: { name, namespace },
        group: 'metrics.k8s.io',
        version: 'v1beta1',
        groupPriorityMinimum: 100,
        versionPriority: 100,
        caBundle: readFileSync(pki.file('ca.crt')).toString('base64'),
      },
    },
  ];
}
