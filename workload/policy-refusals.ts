import { formatReference, parseReference } from '@sealpod/registry';
import type { ContainerData, PolicyData } from './agent-policy/data.ts';
import { literal } from './kubernetes/names.ts';
import { asWritten } from './kubernetes/stored.ts';
import type { Container, PodSpec } from './kubernetes/types.ts';

/** What the guest would refuse of a container, by its policy. */
export interface PolicyRefusal {
  /** Path in the pod. */
  readonly field: string;
  /** The words of the guest. */
  readonly message: string;
}

const maxShownCharacters = 300;
const dataBegin = '\npolicy_data := ';

/**
 * What of a pod its own agent policy refuses, as far as the pod alone tells: containers, images, commands, variables and
 * mounts that another webhook put in, or somebody changed, after the policy was made. Empty for policies that sealpod did
 * not generate: only the guest can say what they allow.
 */
export function policyRefusals(spec: PodSpec, policy: string): PolicyRefusal[] {
  const data = generatedData(policy);
  if (data === undefined) return [];
  const written = { ...asWritten(spec), ephemeralContainers: spec.ephemeralContainers ?? [] };
  return (['initContainers', 'containers', 'ephemeralContainers'] as const).flatMap((list) =>
    (written[list] ?? []).flatMap((container) => containerRefusals(container, `spec.${list}[${container.name}]`, data)),
  );
}

/** The data behind the rules of a generated policy (`policyText`). Upstream's generator has a list of containers there. */
function generatedData(policy: string): Pick<PolicyData, 'containers'> | undefined {
  const at = policy.lastIndexOf(dataBegin);
  if (at < 0) return undefined;
  try {
    const data = JSON.parse(policy.slice(at + dataBegin.length)) as Partial<PolicyData>;
    const { containers } = data;
    return typeof containers === 'object' && !Array.isArray(containers) ? { containers } : undefined;
  } catch {
    // It is the policy engine that says what is wrong with a policy.
    return undefined;
  }
}

function containerRefusals(
  container: Container,
  at: string,
  { containers }: Pick<PolicyData, 'containers'>,
): PolicyRefusal[] {
  const wanted = Object.hasOwn(containers, container.name) ? containers[container.name] : undefined;
  const refusals: PolicyRefusal[] = [];
  const nearest = wanted === undefined ? '' : `; nearest allowed: container ${JSON.stringify(container.name)}`;
  const refuse = (member: string, field: string, expected: unknown, actual: unknown): void => {
    const message = `CreateContainerRequest: ${field}: expected ${shown(expected)}, actual ${shown(actual)}${nearest}`;
    refusals.push({ field: at + member, message });
  };
  if (wanted === undefined) {
    const names = Object.keys(containers).sort();
    refuse('', 'OCI.Annotations[io.kubernetes.cri.container-name]', names, container.name);
    return refusals;
  }
  const image = normalised(container.image ?? '');
  if (image !== wanted.image) refuse('.image', 'OCI.Annotations[io.kubernetes.cri.image-name]', wanted.image, image);
  const command = [...(container.command ?? []), ...(container.args ?? [])];
  const isPlain = (container.command ?? []).length > 0 && !command.some((text) => text.includes('$'));
  if (isPlain && !argumentsFit(wanted, command)) refuse('.command', 'OCI.Process.Args', wanted.args, command);
  for (const { name, value } of container.env ?? []) {
    const known = Object.hasOwn(wanted.env, name) ? wanted.env[name] : undefined;
    // A pattern of somebody else's making is not run here.
    const isFree = wanted.variables.some((rule) => rule.name === `^${literal(name)}$`);
    const isOther = known !== undefined && 'equals' in known && value !== undefined && !value.includes('$');
    if (known === undefined ? !isFree : isOther && known.equals !== value)
      refuse(`.env[${name}]`, `OCI.Process.Env[${name}]`, known ?? 'no such variable', `${name}=${value ?? '…'}`);
  }
  const destinations = Object.keys(wanted.mounts).sort();
  for (const { mountPath } of container.volumeMounts ?? []) {
    if (!destinations.includes(mountPath))
      refuse(`.volumeMounts[${mountPath}]`, `OCI.Mounts[${mountPath}].destination`, destinations, mountPath);
  }
  return refusals;
}

function argumentsFit({ args }: ContainerData, command: readonly string[]): boolean {
  return (
    args.length === command.length && args.every((item, index) => !('equals' in item) || item.equals === command[index])
  );
}

/** The name of an image as containerd tells it to the guest. */
function normalised(image: string): string {
  try {
    return formatReference(parseReference(image));
  } catch {
    return image;
  }
}

/** As rules.rego shows a value. */
function shown(value: unknown): string {
  const text = JSON.stringify(value);
  return [...text].length <= maxShownCharacters ? text : `${[...text].slice(0, maxShownCharacters).join('')}…`;
}
