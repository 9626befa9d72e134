import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, decodeBase64, parseJson, stringMember } from '@sealpod/protocol/json';
import type { Storage } from '@sealpod/storage';
import { type CollateralHttpOptions, getCollateral } from '../http-client.ts';
import { readOptionalFile } from '../optional-file.ts';
import { storedAnswers } from '../stored-answers.ts';

/**
 * A place that has NVIDIA's reference manifests, by id, e.g. `NV_GPU_DRIVER_GH100_550.90.07`. What it answers is bytes that
 * nobody has verified; undefined where it does not have the manifest.
 *
 * @throws SealpodError EV_COLLATERAL_UNAVAILABLE where the place cannot be asked
 */
export interface ManifestSource {
  /** For explanations. */
  readonly name: string;
  manifest(id: string): Promise<Buffer | undefined>;
}

const defaultUrl = 'https://rim.attestation.nvidia.com';
const maxBytes = 1024 * 1024;
const day = 86_400_000;

/** NVIDIA's RIM service, or a mirror of it: `GET /v1/rim/<id>` answers `{"id", "rim": base64, …}`. */
export function manifestService(url = defaultUrl, options: CollateralHttpOptions = {}): ManifestSource {
  const base = url.replace(/\/+$/, '');
  const code = 'EV_COLLATERAL_UNAVAILABLE';
  return {
    name: `RIM service ${base}`,
    async manifest(id) {
      const answer = await getCollateral(`${base}/v1/rim/${encodeURIComponent(id)}`, options);
      if (answer === undefined) return undefined;
      const body = asJsonObject(parseJson(answer.body, { what: 'answer of the RIM service', code }), 'answer', code);
      const answered = stringMember(body, 'id', code);
      if (answered !== id)
        throw new SealpodError(code, 'the RIM service answered another manifest', { expected: id, actual: answered });
      return decodeBase64(stringMember(body, 'rim', code), { what: 'rim', maxBytes, code });
    },
  };
}

/** Manifests in a folder, as `<id>.swidtag`. */
export function manifestFolder(folder: string): ManifestSource {
  return {
    name: `folder ${folder}`,
    manifest: (id) => readOptionalFile(join(folder, `${id}.swidtag`), maxBytes),
  };
}

/** Keeps what a source answered. A manifest of a version may be signed anew, so that it is asked for again after a week. */
export function storedManifests(source: ManifestSource, storage: Storage, now: () => Date): ManifestSource {
  const ask = storedAnswers(storage, 'collateral-nvidia', now);
  return { name: source.name, manifest: (id) => ask(`rim/${id}`, 7 * day, () => source.manifest(id)) };
}
