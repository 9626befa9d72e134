import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { TestCluster } from './test-cluster.ts';

const source = fileURLToPath(new URL('./grpc-health/', import.meta.url));

/** Builds the server of the gRPC health protocol and pushes it as an image; returns its reference by digest. */
export async function pushHealthImage(cluster: TestCluster): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'sealpod-health-'));
  try {
    const file = join(folder, 'health');
    const args = ['build', '-trimpath', '-buildvcs=false', '-ldflags', '-s -w', '-o', file, '.'];
    await promisify(execFile)('go', args, { cwd: source, env: { ...process.env, CGO_ENABLED: '0' } });
    return await cluster.push('tests/grpc-health', [{ path: 'health', type: 'file', mode: 0o755, content: { file } }], {
      command: ['/health', ':9090'],
      environment: [],
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}
