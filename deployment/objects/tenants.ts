import { each, Member, type Node, textOf } from '../template/nodes.ts';
import { partOf, values } from './common.ts';

/** How many machines a namespace may have, and what a container takes that says nothing. */
export const tenantObjects: readonly Node[] = [
  each(values.tenants, 'tenant', (tenant) => {
    const metadata = { name: 'sealpod', namespace: tenant.namespace, labels: partOf };
    return [
      {
        apiVersion: 'v1',
        kind: 'ResourceQuota',
        metadata,
        spec: { hard: new Member(textOf`requests.${values.runtime.machines.resourceName}`, tenant.machines) },
      },
      {
        apiVersion: 'v1',
        kind: 'LimitRange',
        metadata,
        spec: {
          limits: [{ type: 'Container', default: { cpu: tenant.defaultCpu, memory: tenant.defaultMemory } }],
        },
      },
    ];
  }),
];
