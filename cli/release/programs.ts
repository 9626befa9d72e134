import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Tag of the images, and what `sealpod --version` says. */
export const releaseVersion = '0.1.0';

const repository = fileURLToPath(new URL('../..', import.meta.url));

/** One image's programs: main modules by the name of their bundle, and files that a bundle looks for beside itself. */
export interface ProgramList {
  readonly programs: Readonly<Record<string, string>>;
  readonly files: Readonly<Record<string, string>>;
}

/** Beside shim and snapshotter, which the runtime's own bundle brings. */
export const nodeImage = listOf({
  'node-agent': 'runtimeclass/node-agent/main.ts',
  adaptor: 'peer-pods/adaptor/main.ts',
});

/** The only place that says what is in the image of the cluster's services. */
export const servicesImage = listOf(
  {
    controller: 'peer-pods/controller/main.ts',
    webhook: 'peer-pods/webhook/main.ts',
    kbs: 'kbs/main.ts',
    'rego-worker': 'rego/worker.ts',
  },
  {
    'regorus.wasm': 'rego/regorus.wasm',
    'rules.rego': 'workload/agent-policy/rules.rego',
    ...attestationPolicies(),
  },
);

/** The key broker's attestation service reads each of its policies when it starts. */
function attestationPolicies(): Record<string, string> {
  const folder = 'attestation-service/policy';
  const files = readdirSync(join(repository, folder)).filter((file) => file.endsWith('.rego'));
  return Object.fromEntries(files.map((file) => [file, `${folder}/${file}`]));
}

function listOf(programs: Record<string, string>, files: Record<string, string> = {}): ProgramList {
  const absolute = (paths: Record<string, string>): Record<string, string> =>
    Object.fromEntries(Object.entries(paths).map(([name, path]) => [name, join(repository, path)]));
  return { programs: absolute(programs), files: absolute(files) };
}
