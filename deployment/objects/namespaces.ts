import { and, equals, type Node, not, releaseNamespace, when } from '../template/nodes.ts';
import { partOf, values } from './common.ts';

const { namespaces } = values;

function namespace(name: Node, level: 'restricted' | 'privileged'): Node {
  const pod = 'pod-security.kubernetes.io';
  return {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: {
      name,
      labels: { ...partOf, [`${pod}/enforce`]: level, [`${pod}/audit`]: level, [`${pod}/warn`]: level },
    },
  };
}

/** Both namespaces, but for the one that Helm itself has made for the release. */
export const namespaceObjects: readonly Node[] = [
  when(
    and(namespaces.create, not(equals(namespaces.system, releaseNamespace))),
    namespace(namespaces.system, 'restricted'),
  ),
  when(
    and(namespaces.create, not(equals(namespaces.nodes, releaseNamespace))),
    namespace(namespaces.nodes, 'privileged'),
  ),
];
