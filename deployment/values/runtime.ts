import { flag, free, group, integer, list, map, text, type ValueOf } from './setting.ts';

export const logLevels = ['debug', 'info', 'warn', 'error'] as const;
/** `prefix/name`, as Kubernetes wants extended resources. */
const qualifiedName = '^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$';
const quantity = '^[0-9]+(\\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$';

const digest = text(
  'Digest of the pod VM image that machines boot, placed on the nodes by a PodVmImage. Empty: the image that the node agent brings.',
  {
    default: '',
    pattern: '^(sha256:[0-9a-f]{64})?$',
  },
);

/** Options of the runtime: `runtime` of the chart's values, and `spec` of a SealpodRuntime. */
export const runtimeSettings = group('The runtime: node agent, RuntimeClasses, webhook and policies.', {
  images: group('Container images. Name them by digest where you can.', {
    node: text('Image of the node agent.', { default: 'sealpod-node:0.1.0' }),
    services: text('Image of controller, webhook and key broker.', { default: 'sealpod-services:0.1.0' }),
    pullPolicy: text('When nodes pull the images.', {
      default: 'IfNotPresent',
      choices: ['Always', 'IfNotPresent', 'Never'],
    }),
    pullSecrets: list(
      'Names of Secrets with credentials of the registry.',
      text('Name of a Secret.', { maxLength: 253 }),
    ),
  }),
  nodeAgent: group('What places the runtime on nodes and keeps it there.', {
    nodeSelector: map('Nodes that get the runtime.', { 'kubernetes.io/os': 'linux' }),
    tolerations: list('Taints of nodes that get the runtime all the same.', free('A toleration.')),
    maxUnavailable: integer('How many nodes at once may be without an agent while it is updated.', {
      default: 1,
      minimum: 1,
      maximum: 1000,
    }),
    resources: free('Requests and limits of the agent. Machines of pods are accounted for by the pods, not here.', {
      requests: { cpu: '50m', memory: '128Mi' },
      limits: { memory: '512Mi' },
    }),
    healthPort: integer('Port of health and metrics.', { default: 9440, minimum: 1024, maximum: 65535 }),
    logLevel: text('How much it logs.', { default: 'info', choices: logLevels }),
    services: text('Who keeps snapshotter and adaptor running on the node.', {
      default: 'auto',
      choices: ['auto', 'systemd', 'agent'],
    }),
    hostProcess: text("Whose namespaces are the host's.", { default: 'auto', choices: ['auto', 'init', 'containerd'] }),
    stateDirectory: text('Folder of the node for what outlives its restart.', {
      default: '/var/lib/sealpod',
      pattern: '^/[A-Za-z0-9._/-]+$',
    }),
    runDirectory: text('Folder of the node for sockets; short, since paths of sockets are limited.', {
      default: '/run/sealpod',
      pattern: '^/[A-Za-z0-9._/-]+$',
      maxLength: 23,
    }),
    containerd: group('containerd of the nodes.', {
      configuration: text('Its configuration file.', { default: '/etc/containerd/config.toml', pattern: '^/' }),
      socket: text('Its socket.', { default: '/run/containerd/containerd.sock', pattern: '^/' }),
      program: text('Its program: a path, or a name on the PATH of the node.', { default: 'containerd' }),
      restart: free('How it is restarted: `systemd` with a unit, or `command` with a program and its arguments.', {
        systemd: 'containerd',
      }),
    }),
  }),
  machines: group('The virtual machines of pods.', {
    vcpus: integer('Processors of a machine whose pod asks for none.', { default: 1, minimum: 1, maximum: 1024 }),
    memoryMiB: integer('Memory of a machine whose pod asks for none.', {
      default: 512,
      minimum: 128,
      maximum: 16_777_216,
    }),
    maxVcpus: integer('Most processors of one machine.', { default: 32, minimum: 1, maximum: 1024 }),
    maxMemoryMiB: integer('Most memory of one machine.', { default: 65_536, minimum: 128, maximum: 16_777_216 }),
    perNode: integer('How many machines a node may have at once.', { default: 10, minimum: 1, maximum: 10_000 }),
    startTimeoutMs: integer('Milliseconds that a machine may take to start.', {
      default: 300_000,
      minimum: 10_000,
      maximum: 590_000,
    }),
    resourceName: text(
      'Extended resource of which each pod takes one. The peer pods of the upstream project call it kata.peerpods.io/vm.',
      {
        default: 'sealpod.io/vm',
        pattern: qualifiedName,
      },
    ),
    podVmImage: digest,
  }),
  runtimeClass: group('RuntimeClass `sealpod`: machines on the node itself.', {
    overheadCpu: text('Processor time that a pod costs the node beside its machine.', {
      default: '250m',
      pattern: quantity,
    }),
    overheadMemory: text('Memory that a pod costs the node beside its machine: shim and adaptor.', {
      default: '120Mi',
      pattern: quantity,
    }),
    nodeSelector: map('Nodes that can run its pods; the node agent sets this label while everything serves.', {
      'sealpod.io/runtime': 'true',
    }),
    tolerations: list('Tolerations that its pods get.', free('A toleration.')),
  }),
  peer: group('RuntimeClass `sealpod-peer`: machines in a cloud. It exists only where a provider is named.', {
    provider: free(
      "The adaptor's provider, `name` and its options, without secrets. Empty: machines are made on the node. A node has one adaptor and it has one provider, so that pods of both classes run where this says.",
    ),
    overheadCpu: text('Processor time that such a pod costs the node.', { default: '100m', pattern: quantity }),
    overheadMemory: text('Memory that such a pod costs the node.', { default: '120Mi', pattern: quantity }),
  }),
  webhook: group(
    'The admission webhook, which writes the size of the machine into a pod and refuses what its guest would refuse.',
    {
      enabled: flag('Whether there is one.', true),
      replicas: integer('How many answer.', { default: 2, minimum: 1, maximum: 10 }),
      resources: free('Requests and limits of each.', {
        requests: { cpu: '20m', memory: '96Mi' },
        limits: { memory: '256Mi' },
      }),
      defaultRuntimeClass: text(
        'RuntimeClass that pods of confidential namespaces get that name none. Empty: such pods are refused there.',
        { default: '', choices: ['', 'sealpod', 'sealpod-peer'] },
      ),
      guestMemoryMiB: integer('Memory that the guest needs beside the pod.', {
        default: 0,
        minimum: 0,
        maximum: 65_536,
      }),
      requireInitdata: flag('Refuse pods that bring no policy: their guests would allow nothing.', false),
      requireDigests: flag('Refuse images that are not named by digest.', false),
      caBundle: text(
        'Certificate authority of the webhook, PEM in base64, where the controller does not make one. The Secret sealpod-webhook-tls has to hold the pair.',
        {
          default: '',
        },
      ),
      logLevel: text('How much it logs.', { default: 'info', choices: logLevels }),
    },
  ),
  policies: group('Policies that the API server holds pods to by itself, without the webhook.', {
    unsupported: flag('Refuse what no guest could give to a pod, e.g. hostPath.', true),
    imageDigests: flag('Refuse pods of the RuntimeClasses with images that are not named by digest.', true),
    confidentialNamespaces: flag('Refuse other pods in namespaces with the label sealpod.io/confidential=true.', true),
  }),
});

export type RuntimeValues = ValueOf<typeof runtimeSettings>;
