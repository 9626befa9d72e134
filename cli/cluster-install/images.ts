import { SealpodError } from '@sealpod/protocol/errors';
import { parseReference } from '@sealpod/registry';
import { type RegistryAccess, registryClient } from '../image/source.ts';
import { imageNames } from '../release/images.ts';
import { releaseVersion } from '../release/programs.ts';

/**
 * Assignments that name both images of this release by digest. By digest, because nodes would keep an image of the same
 * tag, and an upgrade would change nothing.
 *
 * @param prefix registry and prefix, e.g. `registry.example/sealpod`
 * @param access how that registry is spoken to
 * @throws SealpodError NOT_FOUND, IMG_REGISTRY
 */
export async function imageAssignments(
  prefix: string,
  access: (registry: string) => RegistryAccess,
): Promise<string[]> {
  const assignments: string[] = [];
  for (const [part, name] of Object.entries(imageNames)) {
    const text = `${prefix.replace(/\/$/, '')}/${name}:${releaseVersion}`;
    const reference = parseReference(text);
    const client = registryClient(reference, access(reference.registry));
    try {
      const { digest } = await client.fetchManifest(reference.repository, releaseVersion);
      assignments.push(`runtime.images.${part}=${text.slice(0, -releaseVersion.length - 1)}@${digest}`);
    } catch (cause) {
      throw new SealpodError('NOT_FOUND', `the image ${text} cannot be found`, {
        cause,
        fix: `push it with \`sealpod release images --push ${prefix}\``,
      });
    } finally {
      client.close();
    }
  }
  return assignments;
}
