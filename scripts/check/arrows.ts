import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { repositoryFiles } from './sources.ts';

/** Which rooms a room may import. The architecture's arrows; everything not listed is refused. */
const allowed: Readonly<Record<string, readonly string[]>> = {
  protocol: [],
  rego: ['protocol'],
  storage: ['protocol'],
  registry: ['protocol'],
  processes: ['protocol'],
  workload: ['protocol', 'registry'],
  deployment: ['protocol'],
  'kbs-client': ['protocol'],
  'attestation-service': ['protocol', 'rego', 'storage'],
  kbs: ['protocol', 'rego', 'storage', 'attestation-service', 'kbs-client'],
  'guest-agent': ['protocol', 'rego', 'registry'],
  'peer-pods': ['protocol', 'processes', 'workload', 'deployment', 'kbs-client'],
  runtimeclass: ['protocol', 'deployment'],
  cluster: ['protocol', 'processes'],
  cli: [
    'protocol',
    'processes',
    'rego',
    'registry',
    'kbs',
    'attestation-service',
    'guest-agent',
    'peer-pods',
    'runtimeclass',
    'cluster',
    'workload',
    'deployment',
    'kbs-client',
  ],
};

const importPattern = /(?:from|import)\s*\(?\s*['"]([^'"]+)['"]/g;

/** Reports imports against the arrows, imports that reach into another room by path, and undeclared subpaths. */
export function checkArrows(root: string): string[] {
  const problems: string[] = [];
  for (const path of repositoryFiles(root).filter((file) => /\.(ts|mjs)$/.test(file))) {
    const room = path.split('/')[0] ?? '';
    const rooms = allowed[room];
    if (rooms === undefined || !existsSync(join(root, path))) continue;
    for (const [, specifier = ''] of readFileSync(join(root, path), 'utf8').matchAll(importPattern)) {
      if (specifier.startsWith('.')) {
        const target = relative(root, join(root, dirname(path), specifier));
        if (target.split('/')[0] !== room) problems.push(`${path}: reaches into another room by path: ${specifier}`);
      } else if (specifier.startsWith('@sealpod/')) {
        const [, target = ''] = specifier.split('/');
        if (target !== room && !rooms.includes(target)) problems.push(`${path}: ${room} may not import ${target}`);
      }
    }
  }
  return problems;
}
