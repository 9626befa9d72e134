import { Digest, jsonText, type Node, textOf, when } from '../template/nodes.ts';
import { labels, nodeProgram, probe, pullSecrets, selectorLabels, values } from './common.ts';

/** Name of the node agent's DaemonSet, ConfigMap and ServiceAccount. */
export const nodeAgentName = 'sealpod-node-agent';

/** Annotation of pods that makes a change of configuration replace them. */
export const configurationAnnotation = 'sealpod.io/configuration';

/** Folder below the node's state directory that PodVmImages are placed in, each in a folder named by its digest. */
export const podVmImagesFolder = 'pod-vm-images';

const { runtime, namespaces } = values;
const { nodeAgent, machines } = runtime;

const metadata = { name: nodeAgentName, namespace: namespaces.nodes, labels: labels('node-agent') };

/** The adaptor's provider: a cloud, or machines on the node with the image that was chosen for them. */
const provider: Node = when(
  runtime.peer.provider,
  runtime.peer.provider,
  when(
    machines.podVmImage,
    {
      name: 'qemu',
      imagesDirectory: textOf`${nodeAgent.stateDirectory}/${podVmImagesFolder}`,
      defaultImage: machines.podVmImage,
    },
    { name: 'qemu' },
  ),
);

const configuration: Node = {
  stateDirectory: nodeAgent.stateDirectory,
  runDirectory: nodeAgent.runDirectory,
  containerd: {
    configuration: nodeAgent.containerd.configuration,
    socket: nodeAgent.containerd.socket,
    program: nodeAgent.containerd.program,
    restart: nodeAgent.containerd.restart,
  },
  services: nodeAgent.services,
  hostProcess: nodeAgent.hostProcess,
  adaptor: {
    defaults: { vcpus: machines.vcpus, memoryMiB: machines.memoryMiB },
    limits: { vcpus: machines.maxVcpus, memoryMiB: machines.maxMemoryMiB, sandboxes: machines.perNode },
    startTimeoutMs: machines.startTimeoutMs,
    logLevel: nodeAgent.logLevel,
    provider,
  },
  capacity: { resource: machines.resourceName, count: machines.perNode },
  health: { address: '0.0.0.0', port: nodeAgent.healthPort },
  logLevel: nodeAgent.logLevel,
};

/** What the agent is told. */
const configMap: Node = {
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata,
  data: { 'node-agent.json': jsonText(configuration) },
};

/**
 * The node agent on every node. It is privileged: it places programs on the host, restarts containerd and makes virtual
 * machines, which is why it has a namespace of its own.
 */
const daemonSet: Node = {
  apiVersion: 'apps/v1',
  kind: 'DaemonSet',
  metadata,
  spec: {
    selector: { matchLabels: selectorLabels('node-agent') },
    updateStrategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: nodeAgent.maxUnavailable } },
    template: {
      metadata: {
        labels: labels('node-agent'),
        annotations: {
          [configurationAnnotation]: new Digest(['runtime.nodeAgent', 'runtime.machines', 'runtime.peer']),
        },
      },
      spec: {
        serviceAccountName: nodeAgentName,
        priorityClassName: 'system-node-critical',
        hostPID: true,
        imagePullSecrets: when(runtime.images.pullSecrets, [pullSecrets]),
        nodeSelector: nodeAgent.nodeSelector,
        tolerations: when(nodeAgent.tolerations, nodeAgent.tolerations),
        terminationGracePeriodSeconds: 30,
        containers: [
          {
            name: 'node-agent',
            image: runtime.images.node,
            imagePullPolicy: runtime.images.pullPolicy,
            command: [nodeProgram, '/opt/sealpod/lib/node-agent.mjs', '--config', '/etc/sealpod/node-agent.json'],
            // What it says last is why it failed: conditions tell it.
            terminationMessagePolicy: 'FallbackToLogsOnError',
            env: [{ name: 'NODE_NAME', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } }],
            ports: [{ name: 'health', containerPort: nodeAgent.healthPort }],
            startupProbe: { ...probe('/healthz', 'health'), failureThreshold: 30 },
            livenessProbe: probe('/healthz', 'health'),
            readinessProbe: probe('/readyz', 'health'),
            resources: nodeAgent.resources,
            securityContext: { privileged: true, runAsUser: 0 },
            volumeMounts: [
              { name: 'host', mountPath: '/host' },
              { name: 'configuration', mountPath: '/etc/sealpod', readOnly: true },
            ],
          },
        ],
        volumes: [
          { name: 'host', hostPath: { path: '/', type: 'Directory' } },
          { name: 'configuration', configMap: { name: nodeAgentName } },
        ],
      },
    },
  },
};

/** Objects of the node agent. */
export const nodeAgentObjects: readonly Node[] = [configMap, daemonSet];
