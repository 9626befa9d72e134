import { asSealpodError } from '@sealpod/protocol/errors';
import { decodeInitdataAnnotation, parseInitdata } from '@sealpod/protocol/initdata';
import { initdataAnnotation, machineSize, podRefusals, policyRefusals } from '@sealpod/workload';
import type { RuntimeClassConfig } from './config.ts';
import { hypervisorPrefix, type Pod, runtimeHandlerAnnotation } from './mutate.ts';

/** Why a pod is not admitted. */
export interface Denial {
  /** Stable name of the rule. */
  readonly rule: string;
  readonly field: string;
  readonly message: string;
}

const pinned = /@sha256:[0-9a-f]{64}$/;
/** The switch that makes an agent policy allow everything, where it is set at all. */
const debugSwitch = /\bAllowRequestsFailingPolicy\b(?!\s*(:=|=)\s*false)/;

/**
 * What of a pod its guest, the shim or the adaptor would refuse, in their words. None of it makes the pod secure: the guest
 * decides again, by what was measured.
 */
export function validatePod(pod: Pod, config: RuntimeClassConfig): Denial[] {
  return [
    ...podRefusals(pod.spec ?? {}),
    ...(config.requireDigests ? unpinnedImages(pod) : []),
    ...annotationDenials(pod, config),
    ...initdataDenials(pod, config),
    ...sizeDenials(pod, config),
  ];
}

/**
 * What of a change of a pod is refused. A pod that was admitted otherwise (before the webhook was there) may still be
 * labelled, and let go of its finalizers: only what the change brings in counts.
 */
export function validateUpdate(pod: Pod, before: Pod, config: RuntimeClassConfig): Denial[] {
  const key = ({ rule, field }: Denial): string => `${rule} ${field}`;
  const known = new Set(validatePod(before, config).map(key));
  return [...validatePod(pod, config).filter((denial) => !known.has(key(denial))), ...resizeDenials(pod, before)];
}

/** A machine keeps the size it was started with; the guest changes the limits inside of it. */
function resizeDenials(pod: Pod, before: Pod): Denial[] {
  const [size, earlier] = [machineSize(pod.spec ?? {}), machineSize(before.spec ?? {})];
  return (['vcpus', 'memoryMiB'] as const).flatMap((name) => {
    const annotation = hypervisorPrefix + (name === 'vcpus' ? 'default_vcpus' : 'default_memory');
    const machine = Number(pod.metadata?.annotations?.[annotation] ?? Number.NaN);
    const wanted = size[name] ?? 0;
    if (!(wanted > machine) || wanted <= (earlier[name] ?? 0)) return [];
    const what = name === 'vcpus' ? 'processors' : 'MiB';
    return [
      {
        rule: 'machineSize',
        field: 'spec.containers',
        message: `the machine of the pod has ${machine} ${what} and cannot get ${wanted} while it runs`,
      },
    ];
  });
}

function unpinnedImages({ spec = {} }: Pod): Denial[] {
  const lists = ['initContainers', 'containers', 'ephemeralContainers'] as const;
  return lists.flatMap((list) =>
    (spec[list] ?? [])
      .filter(({ image }) => !pinned.test(image ?? ''))
      .map(({ name, image = '' }) => ({
        rule: 'imageDigest',
        field: `spec.${list}[${name}].image`,
        message: `image ${image} is not named by digest; \`sealpod transform\` pins it`,
      })),
  );
}

function annotationDenials({ metadata }: Pod, config: RuntimeClassConfig): Denial[] {
  const denials: Denial[] = [];
  const annotations = metadata?.annotations ?? {};
  const handler = annotations[runtimeHandlerAnnotation];
  if (handler !== undefined && handler !== config.handler) {
    denials.push({
      rule: 'runtimeHandler',
      field: `metadata.annotations[${runtimeHandlerAnnotation}]`,
      message: `the runtime handler is ${config.handler}, not ${handler}`,
    });
  }
  for (const key of Object.keys(annotations)) {
    if (!key.startsWith(hypervisorPrefix)) continue;
    if (config.enabledAnnotations.includes(key.slice(hypervisorPrefix.length))) continue;
    denials.push({
      rule: 'hypervisorAnnotation',
      field: `metadata.annotations[${key}]`,
      message: `annotation ${key} is not enabled`,
    });
  }
  return denials;
}

function initdataDenials({ metadata, spec = {} }: Pod, config: RuntimeClassConfig): Denial[] {
  const field = `metadata.annotations[${initdataAnnotation}]`;
  const annotation = metadata?.annotations?.[initdataAnnotation];
  if (annotation === undefined) {
    const message = 'the pod has no initdata, so its guest would allow nothing; `sealpod transform` writes it';
    return config.requireInitdata ? [{ rule: 'initdata', field, message }] : [];
  }
  try {
    const { data } = parseInitdata(decodeInitdataAnnotation(annotation));
    const policy = data['policy.rego'] ?? '';
    const refused = policyRefusals(spec, policy).map((refusal) => ({ rule: 'agentPolicy', ...refusal }));
    if (!debugSwitch.test(policy)) return refused;
    const message = 'the policy sets AllowRequestsFailingPolicy, which this image refuses';
    return [{ rule: 'debugPolicy', field, message }, ...refused];
  } catch (thrown) {
    const { code, message } = asSealpodError(thrown, 'INITDATA_SCHEMA');
    return [{ rule: 'initdata', field, message: `${code}: ${message}` }];
  }
}

function sizeDenials({ metadata }: Pod, { limits }: RuntimeClassConfig): Denial[] {
  if (limits === undefined) return [];
  const asked = (name: string): number => Number(metadata?.annotations?.[hypervisorPrefix + name] ?? 0);
  const [vcpus, memoryMiB] = [asked('default_vcpus'), asked('default_memory')];
  if (vcpus <= limits.vcpus && memoryMiB <= limits.memoryMiB) return [];
  return [
    {
      rule: 'machineSize',
      field: 'spec.containers',
      message: `the pod asks for more than a pod VM may have: ${vcpus} processors and ${memoryMiB} MiB, at most ${limits.vcpus} and ${limits.memoryMiB}`,
    },
  ];
}
