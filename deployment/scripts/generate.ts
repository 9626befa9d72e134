/**
 * Writes what is made from the source of manifests: the Helm chart and the reference of its values and resources.
 *
 * @module
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { generatedFiles } from '../generated.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
rmSync(join(root, 'runtimeclass/chart'), { recursive: true, force: true });
for (const [path, content] of generatedFiles()) {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), content);
}
