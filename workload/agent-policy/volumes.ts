import { createHash } from 'node:crypto';
import { type KnownConfiguration, sealedPrefix } from '../kubernetes/environment.ts';
import { literal } from '../kubernetes/names.ts';
import type { ConfigMapVolume, KeyToPath, PodSpec, ProjectedSource, Volume } from '../kubernetes/types.ts';
import { type FileData, sortedByName, type VolumeData } from './data.ts';
import { isCopied, runtimeVolumes } from './mounts.ts';

type Files = Readonly<Record<string, FileData | null>>;

/**
 * What may be copied into the guest: the volumes of the pod and what kubelet and containerd make. Of ConfigMaps that were
 * given, every file is known by its digest, so that a change on the API server is refused. Of Secrets that were given the
 * names are known, and the content of what is sealed; the digest of a short secret would tell too much of it.
 *
 * @param notes told what is not compared
 */
export function copiedVolumes(spec: PodSpec, known: KnownConfiguration, notes: string[]): VolumeData[] {
  const volumes: VolumeData[] = Object.values(runtimeVolumes).map((name) => ({ name, files: null }));
  for (const volume of spec.volumes ?? []) {
    if (!isCopied(volume)) continue;
    const files = volumeFiles(volume, known);
    if (files === null) notes.push(`volume ${volume.name}: its content is not compared, the host can change it`);
    for (const [path, file] of Object.entries(files ?? {})) {
      if (file === null)
        notes.push(`volume ${volume.name}: the content of ${path} is not compared, the host can change it`);
    }
    volumes.push({ name: literal(volume.name), files });
  }
  const containers = [spec.initContainers, spec.containers, spec.ephemeralContainers].flatMap((list) => list ?? []);
  for (const container of containers) {
    for (const [index, mount] of (container.volumeMounts ?? []).entries()) {
      if ((mount.subPath ?? mount.subPathExpr ?? '') === '') continue;
      const volume = (spec.volumes ?? []).find(({ name }) => name === mount.name);
      const files = volume === undefined || !isCopied(volume) ? null : volumeFiles(volume, known);
      volumes.push({ name: String(index), files: files === null ? null : below(files, mount.subPath) });
    }
  }
  return volumes;
}

/** The files of a subPath, which may be one file: its path is then empty. */
function below(files: Files, subPath: string | undefined): Files | null {
  if (subPath === undefined) return null;
  const entries = Object.entries(files).flatMap(([path, file]) => {
    if (path === subPath) return [['', file] as const];
    return path.startsWith(`${subPath}/`) ? [[path.slice(subPath.length + 1), file] as const] : [];
  });
  return Object.fromEntries(entries);
}

function volumeFiles(volume: Volume, known: KnownConfiguration): Files | null {
  if (volume.configMap !== undefined) return configMapFiles(volume.configMap, known);
  if (volume.secret !== undefined) return secretFiles({ ...volume.secret, name: volume.secret.secretName }, known);
  const sources: readonly ProjectedSource[] = volume.projected?.sources ?? [];
  if (sources.length === 0) return null;
  let all: Record<string, FileData | null> = {};
  for (const { configMap, secret } of sources) {
    const files =
      configMap !== undefined
        ? configMapFiles(configMap, known)
        : secret !== undefined
          ? secretFiles(secret, known)
          : null;
    if (files === null) return null;
    all = { ...all, ...files };
  }
  return all;
}

function configMapFiles(volume: ConfigMapVolume, { configMaps }: KnownConfiguration): Files | null {
  const map = configMaps.get(volume.name ?? '');
  if (map === undefined) return null;
  const content = new Map<string, FileData | null>([
    ...Object.entries(map.data ?? {}).map(([key, text]) => [key, fileData(Buffer.from(text))] as const),
    ...Object.entries(map.binaryData ?? {}).map(([key, text]) => [key, fileData(Buffer.from(text, 'base64'))] as const),
  ]);
  return selectedFiles(content, volume.items);
}

function secretFiles(
  volume: { readonly name?: string | undefined; readonly items?: readonly KeyToPath[] },
  { secrets }: KnownConfiguration,
): Files | null {
  const secret = secrets.get(volume.name ?? '');
  if (secret === undefined) return null;
  const content = new Map<string, Buffer>([
    ...Object.entries(secret.data ?? {}).map(([key, text]) => [key, Buffer.from(text, 'base64')] as const),
    ...Object.entries(secret.stringData ?? {}).map(([key, text]) => [key, Buffer.from(text)] as const),
  ]);
  const files = [...content].map(([key, bytes]) => [key, isSealed(bytes) ? fileData(bytes) : null] as const);
  return selectedFiles(new Map(files), volume.items);
}

/** What of a ConfigMap or Secret becomes a file: all keys, or those that the volume names. */
function selectedFiles(content: ReadonlyMap<string, FileData | null>, items: readonly KeyToPath[] | undefined): Files {
  const paths = items ?? [...content.keys()].map((key) => ({ key, path: key }));
  return sortedByName(
    paths.flatMap(({ key, path }) => {
      const file = content.get(key);
      return file === undefined ? [] : [[path, file] as const];
    }),
  );
}

function isSealed(bytes: Buffer): boolean {
  return bytes.subarray(0, sealedPrefix.length).toString('latin1') === sealedPrefix;
}

function fileData(bytes: Buffer): FileData {
  return { size: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') };
}
