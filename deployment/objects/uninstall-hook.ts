import { type Node, textOf, when } from '../template/nodes.ts';
import { access, clusterAccess, serviceAccount } from './access.ts';
import { labels, pullSecrets, restrictedContainer, restrictedPod, serviceProgram, values } from './common.ts';
import { nodeAgentName } from './node-agent.ts';

const { namespaces, runtime, uninstallHook } = values;
export const uninstallName = 'sealpod-uninstall';

/** Helm makes the objects of a hook when their time comes, in the order of their weights, and deletes them after it. */
const hook = (weight: number) => ({
  annotations: {
    'helm.sh/hook': 'pre-delete',
    'helm.sh/hook-weight': String(weight),
    'helm.sh/hook-delete-policy': 'before-hook-creation,hook-succeeded',
  },
});

const account = { name: uninstallName, namespace: namespaces.system };

/** Takes the runtime off the nodes before the release is deleted, and waits until every node has done so. */
export const uninstallHookObjects: readonly Node[] = [
  when(uninstallHook.enabled, [
    serviceAccount(uninstallName, namespaces.system, 'uninstall', hook(-10)),
    ...clusterAccess(
      uninstallName,
      account,
      [{ apiGroups: ['sealpod.io'], resources: ['sealpodruntimes'], verbs: ['get', 'list', 'delete'] }],
      hook(-9),
    ),
    ...access(
      uninstallName,
      namespaces.nodes,
      account,
      [
        { apiGroups: ['apps'], resources: ['daemonsets'], verbs: ['get', 'patch'], resourceNames: [nodeAgentName] },
        { apiGroups: [''], resources: ['pods'], verbs: ['list'] },
      ],
      hook(-9),
    ),
    {
      apiVersion: 'batch/v1',
      kind: 'Job',
      metadata: { name: uninstallName, namespace: namespaces.system, labels: labels('uninstall'), ...hook(0) },
      spec: {
        backoffLimit: 1,
        template: {
          metadata: { labels: labels('uninstall') },
          spec: {
            serviceAccountName: uninstallName,
            restartPolicy: 'Never',
            imagePullSecrets: when(runtime.images.pullSecrets, [pullSecrets]),
            securityContext: restrictedPod,
            containers: [
              {
                name: 'uninstall',
                image: runtime.images.services,
                imagePullPolicy: runtime.images.pullPolicy,
                command: [
                  serviceProgram,
                  '/app/controller.mjs',
                  '--uninstall',
                  '--namespace',
                  namespaces.nodes,
                  '--timeout',
                  textOf`${uninstallHook.timeoutSeconds}`,
                ],
                resources: { requests: { cpu: '20m', memory: '96Mi' }, limits: { memory: '256Mi' } },
                securityContext: restrictedContainer,
              },
            ],
          },
        },
      },
    },
  ]),
];
