import { SealpodError } from '@sealpod/protocol/errors';

/** A release of Kubernetes that the cluster can be, and the containerd that runs its pods. */
export interface Release {
  /** `major.minor`. */
  readonly kubernetes: string;
  /** Folder of the go.mod that pins Kubernetes; the sources are those of `programs/`. */
  readonly modules: string;
  /** Folder of a module with another containerd than that of `modules`. */
  readonly containerdModules?: string;
  /** Version of containerd's configuration file. */
  readonly containerdConfiguration: 2 | 3;
}

/** Newest first. */
export const releases = [
  { kubernetes: '1.37', modules: 'programs', containerdConfiguration: 3 },
  {
    kubernetes: '1.36',
    modules: 'programs-1.36',
    containerdModules: 'containerd-1.7',
    containerdConfiguration: 2,
  },
] as const satisfies readonly Release[];

/** What a cluster is where nothing else is asked for. */
export const newestRelease: Release = releases[0];

/** The release of a version as users write it. @throws SealpodError USAGE */
export function releaseOf(version: string): Release {
  const found = releases.find(({ kubernetes }) => kubernetes === version);
  if (found !== undefined) return found;
  throw new SealpodError('USAGE', 'this version of Kubernetes is not offered', {
    expected: releases.map(({ kubernetes }) => kubernetes).join(' or '),
    actual: version,
  });
}
