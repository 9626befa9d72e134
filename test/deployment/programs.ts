import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const cache = join(process.env['SEALPOD_CACHE'] ?? '/var/cache/sealpod', 'cluster');

/** Folder with Kubernetes and Helm as the development cluster has built them; undefined where it never was. */
export const programs: string | undefined = existsSync(cache)
  ? readdirSync(cache)
      .map((name) => join(cache, name))
      .find((folder) => ['complete', 'helm', 'kube-apiserver'].every((name) => existsSync(join(folder, name))))
  : undefined;

/** Stands in the name of a suite that is skipped. */
export const missingPrograms =
  programs === undefined ? ' (skipped: Kubernetes is not built, run `sealpod cluster up` once)' : '';
