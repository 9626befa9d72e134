import type { Container, PodSpec, Volume } from './types.ts';

/** Volume that the API server adds for a token of the service account; its name ends at random. */
const tokenVolume = /^kube-api-access-[a-z0-9]{5}$/;

/**
 * A pod as its owner wrote it, where the API server stored it: without the token volume that each pod gets (a policy allows
 * it by its kind), and volumes of no kind as what they are, empty folders. All other defaults say what is so anyway.
 */
export function asWritten(spec: PodSpec): PodSpec {
  const tokens = new Set(
    (spec.volumes ?? [])
      .filter(({ name, projected }) => tokenVolume.test(name) && projected !== undefined)
      .map(({ name }) => name),
  );
  const withoutTokens = (container: Container): Container => ({
    ...container,
    ...(container.volumeMounts === undefined
      ? {}
      : { volumeMounts: container.volumeMounts.filter(({ name }) => !tokens.has(name)) }),
  });
  const lists = Object.fromEntries(
    (['initContainers', 'containers'] as const).flatMap((list) => {
      const containers = spec[list];
      return containers === undefined ? [] : [[list, containers.map(withoutTokens)] as const];
    }),
  );
  return {
    ...spec,
    ...lists,
    ...(spec.volumes === undefined
      ? {}
      : { volumes: spec.volumes.filter(({ name }) => !tokens.has(name)).map(withKind) }),
  };
}

function withKind(volume: Volume): Volume {
  const kinds = Object.entries(volume).filter(
    ([key, value]) => key !== 'name' && value !== null && value !== undefined,
  );
  return kinds.length === 0 ? { name: volume.name, emptyDir: {} } : volume;
}
