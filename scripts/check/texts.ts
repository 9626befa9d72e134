import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { repositoryFiles } from './sources.ts';

/** Registry host names do not belong in the repository: an image or package is named without the host it came from. */
const hosts = [
  'registry.npmjs.',
  'ghcr.',
  'quay.',
  'docker.',
  'gcr.',
  'mcr.microsoft.',
  'nvcr.',
  'crates.',
  'proxy.golang.',
  'pypi.',
  'deb.debian.',
];
const hostPattern = new RegExp(
  `(?<![\\w.-])(?:${hosts.map((host) => host.replaceAll('.', '\\.')).join('|')})(?:org|io|com|net)\\b`,
);
/** docker.io is part of the reference normalisation rules that every image tool shares. */
const exempt = /^(package-lock\.json|.*Cargo\.lock|.*go\.sum|scripts\/check\/texts\.ts|registry\/.*|.*\/gen\/.*)$/;

/** Reports registry host names, left-over conflict marks and focused tests. */
export function checkTexts(root: string): string[] {
  const problems: string[] = [];
  for (const path of repositoryFiles(root).filter(
    (file) => /\.(ts|mjs|md|json|toml|yaml|yml|sh|rego|rs|go|proto)$/.test(file) && !exempt.test(file),
  )) {
    const lines = readFileSync(join(root, path), 'utf8').split('\n');
    lines.forEach((line, index) => {
      if (hostPattern.test(line)) problems.push(`${path}:${index + 1}: names a registry host`);
      if (/^(<{7}|>{7}) /.test(line)) problems.push(`${path}:${index + 1}: conflict mark`);
    });
  }
  return problems;
}
