import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ClusterLayout } from './layout.ts';

/** Imports the sandbox image of runc pods, which no registry has to serve. */
export function importPlainImages(layout: ClusterLayout, programs: string): void {
  const folder = join(layout.directory, 'image');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(join(folder, 'blobs', 'sha256'), { recursive: true });
  const layer = join(folder, 'layer.tar');
  const tar = [
    // Programs may be links into the cache.
    '--dereference',
    '--sort=name',
    '--mtime=@0',
    '--owner=0',
    '--group=0',
    '--numeric-owner',
    '-C',
    programs,
    '-cf',
    layer,
    'pause',
  ];
  execFileSync('tar', tar);
  const blob = (content: Buffer): { readonly digest: string; readonly size: number } => {
    const hex = createHash('sha256').update(content).digest('hex');
    writeFileSync(join(folder, 'blobs', 'sha256', hex), content);
    return { digest: `sha256:${hex}`, size: content.length };
  };
  const json = (value: object): Buffer => Buffer.from(JSON.stringify(value));
  const layerBlob = blob(readFileSync(layer));
  rmSync(layer);
  const platform = { architecture: 'amd64', os: 'linux' };
  const oci = 'application/vnd.oci.image';
  const config = blob(
    json({ ...platform, config: { Entrypoint: ['/pause'] }, rootfs: { type: 'layers', diff_ids: [layerBlob.digest] } }),
  );
  const manifest = blob(
    json({
      schemaVersion: 2,
      mediaType: `${oci}.manifest.v1+json`,
      config: { mediaType: `${oci}.config.v1+json`, ...config },
      layers: [{ mediaType: `${oci}.layer.v1.tar`, ...layerBlob }],
    }),
  );
  const annotations = { 'io.containerd.image.name': 'localhost/pause:1' };
  const index = {
    schemaVersion: 2,
    manifests: [{ mediaType: `${oci}.manifest.v1+json`, ...manifest, platform, annotations }],
  };
  writeFileSync(join(folder, 'index.json'), JSON.stringify(index));
  writeFileSync(join(folder, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  const archive = join(layout.directory, 'pause.tar');
  execFileSync('tar', ['-C', folder, '-cf', archive, 'oci-layout', 'index.json', 'blobs']);
  execFileSync(join(programs, 'ctr'), ['-a', layout.containerdSocket, '-n', 'k8s.io', 'images', 'import', archive], {
    stdio: 'pipe',
  });
  rmSync(folder, { recursive: true });
  rmSync(archive);
}
