import { SealpodError } from '@sealpod/protocol/errors';
import type { WorkloadImage } from '../image/image.ts';
import {
  containerEnvironment,
  type Environment,
  type Expected,
  expand,
  type KnownConfiguration,
} from '../kubernetes/environment.ts';
import type { Container, Handler, ObjectMeta, PodSpec } from '../kubernetes/types.ts';
import { type ContainerData, sortedByName } from './data.ts';
import { containerMounts } from './mounts.ts';
import { volumeKeys } from './persistent-volumes.ts';

/** What containerd gives a container that says nothing (its `defaultUnixCaps`). */
const defaultCapabilities = [
  'CAP_AUDIT_WRITE',
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_MKNOD',
  'CAP_NET_BIND_SERVICE',
  'CAP_NET_RAW',
  'CAP_SETFCAP',
  'CAP_SETGID',
  'CAP_SETPCAP',
  'CAP_SETUID',
  'CAP_SYS_CHROOT',
];
const defaultPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** What a container's policy is made from. */
export interface ContainerContext {
  readonly spec: PodSpec;
  /** Kind of the workload. */
  readonly owner: string;
  readonly metadata: ObjectMeta;
  readonly known: KnownConfiguration;
  /** Pattern of the pod's host name. */
  readonly hostname: string;
  readonly image: WorkloadImage;
  /** Names of the init containers before it. */
  readonly after: readonly string[];
}

/**
 * The policy of one container: what Kubernetes, kubelet and containerd (1.6 to 2.4) make of its specification and image.
 *
 * @throws SealpodError USAGE, UNSUPPORTED where that cannot be told beforehand
 */
export function containerData(container: Container, context: ContainerContext): ContainerData {
  const { spec, image } = context;
  const environment = withRuntimeVariables(container, context);
  const { mounts, storages, volumes } = containerMounts(container, spec, volumeKeys(context.metadata));
  const security = container.securityContext;
  return {
    image: image.reference,
    args: commandLine(container, image).map((text) => expand(text, environment.variables)),
    cwd: container.workingDir || image.workingDirectory || '/',
    env: sortedByName(environment.variables),
    variables: environment.optional,
    user: userOf(container, spec, image),
    terminal: container.tty === true,
    stdin: container.stdin === true,
    readonly_root: security?.readOnlyRootFilesystem === true,
    no_new_privileges: security?.allowPrivilegeEscalation === false,
    capabilities: capabilitiesOf(container),
    mounts,
    storages,
    volumes,
    commands: commandsOf(container),
    after: context.after,
  };
}

/** Kubernetes' rule: a `command` replaces entry point and arguments of the image, `args` the arguments. */
function commandLine(container: Container, image: WorkloadImage): string[] {
  const { command = [], args = [] } = container;
  const line =
    command.length > 0 ? [...command, ...args] : [...image.entrypoint, ...(args.length > 0 ? args : image.command)];
  if (line.length === 0)
    throw new SealpodError('USAGE', `container ${container.name} has no command, and neither has its image`);
  // Only what the pod says is expanded; a $( of the image stays.
  const own = command.length > 0 ? line.length : args.length;
  const fixed = line.length - own;
  return line.map((text, index) => (index < fixed ? text.replaceAll('$', '$$$$') : text));
}

function withRuntimeVariables(container: Container, context: ContainerContext): Environment {
  const own = containerEnvironment(container, context.metadata, context.known);
  const variables = new Map<string, Expected>([['PATH', { equals: defaultPath }]]);
  if (container.tty === true) variables.set('TERM', { equals: 'xterm' });
  for (const variable of context.image.environment) {
    const at = variable.indexOf('=');
    if (at > 0) variables.set(variable.slice(0, at), { equals: variable.slice(at + 1) });
  }
  for (const [name, value] of own.variables) variables.set(name, value);
  const optional = [...own.optional, { name: '^HOSTNAME$', value: { pattern: context.hostname } }];
  // The controller of an indexed job numbers the pods.
  if (['Job', 'CronJob'].includes(context.owner))
    optional.push({ name: '^JOB_COMPLETION_INDEX$', value: { pattern: '^[0-9]{1,10}$' } });
  return { variables, optional };
}

function userOf(container: Container, spec: PodSpec, image: WorkloadImage): ContainerData['user'] {
  const pod = spec.securityContext;
  const wanted = container.securityContext?.runAsUser ?? pod?.runAsUser;
  const [imageUser = '', imageGroup = ''] = image.user.split(':');
  const uid = wanted ?? number(imageUser, container, 'runAsUser');
  const groupOfImage = wanted === undefined ? number(imageGroup, container, 'runAsGroup') : 0;
  const gid = container.securityContext?.runAsGroup ?? pod?.runAsGroup ?? groupOfImage;
  const groups = new Set([
    gid,
    ...(pod?.supplementalGroups ?? []),
    ...(pod?.fsGroup === undefined ? [] : [pod.fsGroup]),
  ]);
  return { uid, gid, additional_gids: [...groups].sort((one, other) => one - other) };
}

/** The node never has the image's files, so names of users mean nothing there. */
function number(text: string, container: Container, field: string): number {
  if (text === '') return 0;
  if (/^[0-9]{1,10}$/.test(text)) return Number(text);
  throw new SealpodError(
    'USAGE',
    `container ${container.name}: the image names a user or group, which only the guest could look up`,
    {
      expected: 'a number',
      actual: text,
      fix: `set securityContext.${field}`,
    },
  );
}

function capabilitiesOf(container: Container): string[] {
  const { add = [], drop = [] } = container.securityContext?.capabilities ?? {};
  const full = (name: string) => (/^CAP_/i.test(name) ? name : `CAP_${name}`).toUpperCase();
  const added = add.map(full);
  const dropped = drop.map(full);
  const kept = dropped.includes('CAP_ALL') ? [] : defaultCapabilities.filter((name) => !dropped.includes(name));
  return [...new Set([...kept, ...added])].sort();
}

/** Commands that the kubelet runs by itself; `$(NAME)` is not expanded in them. */
function commandsOf(container: Container): Expected[][] {
  const handlers: readonly (Handler | undefined)[] = [
    container.livenessProbe,
    container.readinessProbe,
    container.startupProbe,
    container.lifecycle?.postStart,
    container.lifecycle?.preStop,
  ];
  return handlers.flatMap((handler) => {
    const command = handler?.exec?.command;
    return command === undefined ? [] : [command.map((text) => ({ equals: text }))];
  });
}
