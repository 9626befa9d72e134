import type { JsonObject } from '@sealpod/protocol/json';
import { nodeProgram } from './common.ts';

/** Annotation of a DaemonSet that takes off its nodes what it had placed there. */
export const removalAnnotation = 'sealpod.io/removing';

interface PodSpec {
  readonly containers: readonly (JsonObject & { readonly command: readonly string[] })[];
}

/**
 * Turns the DaemonSet of the node agent into one that removes the runtime: each pod does so in an init container, and is
 * ready once that has ended well. All nodes at once: nothing is left to keep available.
 *
 * @param daemonSet as it was made, or as the API server has it
 */
export function removalPatch(daemonSet: JsonObject): JsonObject {
  const { template } = daemonSet['spec'] as unknown as { template: { spec: PodSpec } };
  const [agent] = template.spec.containers;
  if (agent === undefined) throw new TypeError('a DaemonSet without container');
  const {
    startupProbe: _startup,
    livenessProbe: _liveness,
    readinessProbe: _readiness,
    ports: _ports,
    ...remover
  } = agent;
  const idle = { requests: { cpu: '5m', memory: '48Mi' }, limits: { memory: '96Mi' } };
  return {
    metadata: { annotations: { [removalAnnotation]: 'true' } },
    spec: {
      updateStrategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: '100%' } },
      template: {
        metadata: { annotations: { [removalAnnotation]: 'true' } },
        spec: {
          initContainers: [{ ...remover, name: 'uninstall', command: [...agent.command, '--uninstall'] }],
          containers: [
            // A strategic merge keeps what it does not name, and the agent would place everything again.
            ...template.spec.containers.map(({ name }) => ({ name: name ?? '', $patch: 'delete' })),
            {
              name: 'removed',
              image: agent['image'] ?? '',
              command: [nodeProgram, '-e', 'process.on("SIGTERM", () => process.exit()); setInterval(() => {}, 1e6)'],
              resources: idle,
              securityContext: {
                allowPrivilegeEscalation: false,
                readOnlyRootFilesystem: true,
                capabilities: { drop: ['ALL'] },
              },
            },
          ],
        },
      },
    },
  };
}
