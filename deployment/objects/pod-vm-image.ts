import type { JsonObject } from '@sealpod/protocol/json';
import type { PodVmImageSpec } from '../resources/settings.ts';
import type { ChartValues } from '../values/chart.ts';
import { labels, restrictedContainer, selectorLabels, serviceProgram } from './common.ts';
import { podVmImagesFolder } from './node-agent.ts';

/** Label of the DaemonSet and the pods that place a PodVmImage. */
export const podVmImageLabel = 'sealpod.io/pod-vm-image';

/** Name of the DaemonSet of a PodVmImage. */
export const podVmImageName = (name: string): string => `pod-vm-image-${name}`;

export interface PodVmImageOptions {
  readonly name: string;
  readonly spec: PodVmImageSpec;
  /** Namespace of the node agent: these pods write to a folder of the node, too. */
  readonly namespace: string;
  readonly images: ChartValues['runtime']['images'];
  readonly stateDirectory: string;
  /** Nodes of the runtime. */
  readonly nodeSelector: Readonly<Record<string, string>>;
  readonly tolerations: readonly JsonObject[];
  /** Takes it off the nodes. */
  readonly remove?: boolean;
}

/**
 * Places an image on every node, from an OCI image that is mounted as a volume (Kubernetes 1.35 or newer by default). The
 * pod is ready once the file has the right digest; it may write that one folder and nothing else of the node.
 */
export function podVmImageManifest(options: PodVmImageOptions): JsonObject {
  const { name, spec, namespace, images, remove = false } = options;
  const ofImage = { [podVmImageLabel]: name };
  const metadata = { name: podVmImageName(name), namespace, labels: { ...labels('pod-vm-image'), ...ofImage } };
  return {
    apiVersion: 'apps/v1',
    kind: 'DaemonSet',
    metadata,
    spec: {
      selector: { matchLabels: { ...selectorLabels('pod-vm-image'), ...ofImage } },
      updateStrategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: '100%' } },
      template: {
        metadata: { labels: metadata.labels },
        spec: {
          automountServiceAccountToken: false,
          enableServiceLinks: false,
          nodeSelector: { ...options.nodeSelector },
          ...(options.tolerations.length === 0 ? {} : { tolerations: [...options.tolerations] }),
          ...(images.pullSecrets.length === 0
            ? {}
            : { imagePullSecrets: images.pullSecrets.map((secret) => ({ name: secret })) }),
          securityContext: { runAsUser: 0, runAsGroup: 0, seccompProfile: { type: 'RuntimeDefault' } },
          terminationGracePeriodSeconds: 5,
          containers: [
            {
              name: 'image',
              image: images.services,
              imagePullPolicy: images.pullPolicy,
              command: [
                serviceProgram,
                '/app/controller.mjs',
                remove ? '--remove-image' : '--place-image',
                '--digest',
                spec.digest,
                ...(remove ? [] : ['--from', '/image']),
                '--to',
                '/images',
              ],
              terminationMessagePolicy: 'FallbackToLogsOnError',
              readinessProbe: {
                exec: { command: [serviceProgram, '-e', 'require("node:fs").statSync("/tmp/ready")'] },
                periodSeconds: 5,
                timeoutSeconds: 10,
              },
              resources: { requests: { cpu: '10m', memory: '64Mi' }, limits: { memory: '256Mi' } },
              securityContext: restrictedContainer as unknown as JsonObject,
              volumeMounts: [
                ...(remove ? [] : [{ name: 'source', mountPath: '/image', readOnly: true }]),
                { name: 'images', mountPath: '/images' },
                { name: 'temporary', mountPath: '/tmp' },
              ],
            },
          ],
          volumes: [
            ...(remove ? [] : [{ name: 'source', image: { reference: spec.source, pullPolicy: 'IfNotPresent' } }]),
            {
              name: 'images',
              hostPath: { path: `${options.stateDirectory}/${podVmImagesFolder}`, type: 'DirectoryOrCreate' },
            },
            { name: 'temporary', emptyDir: { medium: 'Memory', sizeLimit: '1Mi' } },
          ],
        },
      },
    },
  };
}
