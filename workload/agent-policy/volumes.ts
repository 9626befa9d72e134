import { createHash } from 'node:crypto';
import type { KnownConfiguration } from '../kubernetes/environment.ts';
import { literal } from '../kubernetes/names.ts';
import type { ConfigMapVolume, PodSpec, ProjectedSource, Volume } from '../kubernetes/types.ts';
import type { FileData, VolumeData } from './data.ts';
import { isCopied, runtimeVolumes } from './mounts.ts';

type Files = Readonly<Record<string, FileData>>;

/**
 * What may be copied into the guest: the volumes of the pod and what kubelet and containerd make. Of ConfigMaps that were
 * given, every file is known by its digest, so that a change on the API server is refused; a Secret's digest would tell
 * too much of a short secret.
 *
 * @param notes told what is not compared
 */
export function copiedVolumes(spec: PodSpec, known: KnownConfiguration, notes: string[]): VolumeData[] {
  const volumes: VolumeData[] = Object.values(runtimeVolumes).map((name) => ({ name, files: null }));
  for (const volume of spec.volumes ?? []) {
    if (!isCopied(volume)) continue;
    const files = volumeFiles(volume, known);
    if (files === null) notes.push(`volume ${volume.name}: its content is not compared, the host can change it`);
    volumes.push({ name: literal(volume.name), files });
  }
  for (const container of [...(spec.initContainers ?? []), ...(spec.containers ?? [])]) {
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
  const sources: readonly ProjectedSource[] = volume.projected?.sources ?? [];
  if (sources.length === 0) return null;
  let all: Record<string, FileData> = {};
  for (const { configMap } of sources) {
    const files = configMap === undefined ? null : configMapFiles(configMap, known);
    if (files === null) return null;
    all = { ...all, ...files };
  }
  return all;
}

function configMapFiles(volume: ConfigMapVolume, { configMaps }: KnownConfiguration): Files | null {
  const map = configMaps.get(volume.name ?? '');
  if (map === undefined) return null;
  const content = new Map<string, Buffer>([
    ...Object.entries(map.data ?? {}).map(([key, text]) => [key, Buffer.from(text)] as const),
    ...Object.entries(map.binaryData ?? {}).map(([key, text]) => [key, Buffer.from(text, 'base64')] as const),
  ]);
  const paths = volume.items ?? [...content.keys()].map((key) => ({ key, path: key }));
  return Object.fromEntries(
    paths.flatMap(({ key, path }) => {
      const bytes = content.get(key);
      return bytes === undefined ? [] : [[path, fileData(bytes)] as const];
    }),
  );
}

function fileData(bytes: Buffer): FileData {
  return { size: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') };
}
