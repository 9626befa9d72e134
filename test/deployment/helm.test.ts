import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ChartValues, chartManifests, standardValues } from '@sealpod/deployment';
import type { JsonObject } from '@sealpod/protocol/json';
import { afterAll, describe, expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { root } from '../e2e/environment.ts';
import { missingPrograms, programs } from './programs.ts';

/* The chart as Helm itself renders it, against the objects that the controller makes of the same values. */

const chart = join(root, 'runtimeclass/chart');
const folder = mkdtempSync(join(tmpdir(), 'sealpod-helm-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

type Changes = { readonly [Name in keyof ChartValues]?: ChartValues[Name] | JsonObject };

/** Values with changes, group by group, as Helm merges them. */
function merged(base: JsonObject, over: JsonObject): JsonObject {
  const isGroup = (value: unknown): value is JsonObject =>
    typeof value === 'object' && value !== null && !Array.isArray(value);
  return Object.fromEntries(
    [...new Set([...Object.keys(base), ...Object.keys(over)])].map((name) => {
      const [old, changed] = [base[name], over[name]];
      const value = changed === undefined ? old : isGroup(old) && isGroup(changed) ? merged(old, changed) : changed;
      return [name, value ?? null];
    }),
  );
}

function helm(changes: Changes, namespace: string): JsonObject[] {
  const file = join(folder, 'values.json');
  writeFileSync(file, JSON.stringify(changes));
  const text = execFileSync(
    join(programs ?? '', 'helm'),
    ['template', 'sealpod', chart, '--namespace', namespace, '--values', file],
    { encoding: 'utf8', env: { ...process.env, HELM_CACHE_HOME: folder, HELM_CONFIG_HOME: folder }, stdio: 'pipe' },
  );
  return parseAllDocuments(text)
    .map((document) => document.toJS() as JsonObject | null)
    .filter((object) => object !== null);
}

const key = (object: JsonObject): string => {
  const { name, namespace = '' } = object['metadata'] as { name: string; namespace?: string };
  return `${String(object['kind'])} ${namespace}/${name}`;
};
const byKey = (objects: readonly JsonObject[]) => [...objects].sort((one, other) => (key(one) < key(other) ? -1 : 1));

describe.skipIf(programs === undefined)(`Helm${missingPrograms}`, () => {
  const cases: Readonly<Record<string, Changes>> = {
    'nothing set': {},
    'a cloud, and no webhook policies': {
      runtime: {
        peer: { provider: { name: 'module', path: '/opt/cloud.mjs', zones: ['a', 'b'], tls: { 'a<b': '&' } } },
        policies: { unsupported: false, imageDigests: false, confidentialNamespaces: false },
      },
    },
    'other names, selectors and sizes': {
      namespaces: { system: 'trust', nodes: 'metal' },
      runtime: {
        images: { node: 'registry.test/node@sha256:1', pullSecrets: ['one', 'two'] },
        nodeAgent: {
          nodeSelector: { pool: 'metal', 'kubernetes.io/os': null as unknown as string },
          tolerations: [{ key: 'pool', operator: 'Equal', value: 'metal', effect: 'NoSchedule' }],
          containerd: { restart: { command: ['/bin/restart', 'now'] } },
          maxUnavailable: 3,
        },
        machines: { maxMemoryMiB: 1_048_576, podVmImage: `sha256:${'a'.repeat(64)}` },
        runtimeClass: { tolerations: [{ key: 'pool', operator: 'Exists' }] },
        webhook: { replicas: 3, requireInitdata: true },
      },
    },
    'a runtime that the controller makes': {
      runtimeManagedBy: 'Resource',
      controller: { trustNamespaces: ['a', 'b'] },
    },
    'no controller': { controller: { enabled: false }, runtime: { webhook: { caBundle: 'QUJD' } } },
    'neither webhook nor network policies': {
      runtime: { webhook: { enabled: false } },
      networkPolicies: { enabled: false },
      uninstallHook: { enabled: false },
    },
    tenants: {
      tenants: [
        { namespace: 'a', machines: 3, defaultCpu: '1', defaultMemory: '1Gi' },
        { namespace: 'b', machines: 0, defaultCpu: '500m', defaultMemory: '256Mi' },
      ],
      networkPolicies: { metricsFrom: { 'kubernetes.io/metadata.name': null as unknown as string } },
    },
  };

  for (const [name, changes] of Object.entries(cases)) {
    it(`renders the objects that the source makes: ${name}`, () => {
      const withoutNulls = JSON.parse(
        JSON.stringify(merged(standardValues as unknown as JsonObject, changes as JsonObject)),
        (_name, value: unknown) => (value === null ? undefined : value),
      ) as ChartValues;
      for (const namespace of ['default', withoutNulls.namespaces.system]) {
        const rendered = helm(changes, namespace);
        expect(byKey(rendered)).toEqual(byKey(chartManifests(withoutNulls, namespace)));
        expect(rendered.length).toBeGreaterThan(5);
      }
    });
  }

  it('has a chart that lints', () => {
    const result = spawnSync(join(programs ?? '', 'helm'), ['lint', '--strict', chart], { encoding: 'utf8' });
    expect(result.status, result.stdout + result.stderr).toBe(0);
  });

  it('refuses values that do not fit', () => {
    for (const [changes, message] of [
      [{ runtime: { webhook: { replicas: 0 } } }, 'replicas'],
      [{ runtime: { misspelt: true } }, 'misspelt'],
      [{ controller: { enabled: false } }, 'anyOf'],
    ] as const) {
      expect(() => helm(changes as unknown as Changes, 'default')).toThrow(message);
    }
  });
});
