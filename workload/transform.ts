import { SealpodError } from '@sealpod/protocol/errors';
import { decodeInitdataAnnotation } from '@sealpod/protocol/initdata';
import { generatePolicy, type PolicyOptions } from './agent-policy/policy.ts';
import type { ImageResolver } from './image/image.ts';
import { initdataAnnotation, type WorkloadInitdata, workloadInitdata } from './initdata.ts';
import { readManifests, writeManifests } from './kubernetes/manifests.ts';
import { restoreTemplate, writeTransformed } from './transformed-template.ts';

export interface TransformOptions
  extends PolicyOptions,
    Pick<WorkloadInitdata, 'base' | 'kbs' | 'plainHttpRegistries'> {
  /** RuntimeClasses whose pods run in machines of their own; pods of others are left as they are. */
  readonly runtimeClasses: readonly string[];
  readonly images: ImageResolver;
  /** Manifests with ConfigMaps and Secrets that are not in the text itself. */
  readonly configuration?: readonly string[];
}

/** What was generated for one workload. */
export interface TransformedWorkload {
  /** Kind and name. */
  readonly workload: string;
  /** Hex SHA-256 of the initdata. */
  readonly initdataDigest: string;
  readonly policy: string;
  readonly images: readonly string[];
  readonly notes: readonly string[];
}

export interface Transformed {
  /** The manifests, each confidential pod template with images by digest and the initdata annotation. */
  readonly text: string;
  readonly workloads: readonly TransformedWorkload[];
}

/**
 * Generates agent policy, image policy and initdata for every confidential pod template of some manifests, and writes them
 * in. What else stands in the text stays as it is. Doing it twice changes nothing more, and {@link restoreManifests} undoes it.
 *
 * @throws SealpodError as {@link generatePolicy}, naming the workload
 */
export async function transformManifests(text: string, options: TransformOptions): Promise<Transformed> {
  const manifests = readManifests(text);
  const given = (options.configuration ?? []).map((more) => readManifests(more).configuration);
  const all = [...given, manifests.configuration];
  const known = {
    configMaps: new Map(all.flatMap(({ configMaps }) => [...configMaps])),
    secrets: new Map(all.flatMap(({ secrets }) => [...secrets])),
  };
  const workloads: TransformedWorkload[] = [];
  for (const found of manifests.templates) {
    const { owner, template } = found;
    if (!options.runtimeClasses.includes(template.spec?.runtimeClassName ?? '')) continue;
    const workload = `${owner.kind} ${owner.metadata.name ?? owner.metadata.generateName ?? ''}`;
    try {
      const generated = await generatePolicy(owner, template, known, options.images, options);
      const references = [...new Set([...generated.images.values()].map(({ reference }) => reference))].sort();
      const existing = template.metadata?.annotations?.[initdataAnnotation];
      const initdata = workloadInitdata({
        base: options.base ?? (existing === undefined ? undefined : decodeInitdataAnnotation(existing)),
        kbs: options.kbs,
        plainHttpRegistries: options.plainHttpRegistries ?? [],
        images: references,
        agentPolicy: generated.policy,
      });
      writeTransformed(found, initdata.annotation, generated.images);
      const { policy, notes } = generated;
      workloads.push({ workload, initdataDigest: initdata.digest, policy, images: references, notes });
    } catch (thrown) {
      if (!(thrown instanceof SealpodError)) throw thrown;
      throw new SealpodError(thrown.code, `${workload}: ${thrown.message}`, { ...thrown.detail, cause: thrown });
    }
  }
  return { text: writeManifests(manifests.documents), workloads };
}

/**
 * Takes back what {@link transformManifests} wrote: images as they were named before, and the initdata annotation that was
 * there, if any. Manifests that were not transformed stay as they are.
 *
 * @throws SealpodError USAGE for text that is not YAML, or a record of the transformation that was changed
 */
export function restoreManifests(text: string): string {
  const manifests = readManifests(text);
  for (const found of manifests.templates) restoreTemplate(found);
  return writeManifests(manifests.documents);
}
