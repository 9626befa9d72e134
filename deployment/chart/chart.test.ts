import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { generatedFiles } from '../generated.ts';
import { runtimeManifests } from '../objects/manifests.ts';
import { customResourceDefinition, resourceDefinitions } from '../resources/definitions.ts';
import { type ChartValues, chartSettings } from '../values/chart.ts';
import { defaultOf } from '../values/setting.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const standard = defaultOf(chartSettings) as unknown as ChartValues;

test('K-28: chart and reference pages are what their source makes', () => {
  const generated = generatedFiles();
  for (const [path, content] of generated) {
    const file = join(root, path);
    expect(existsSync(file) ? readFileSync(file, 'utf8') : 'missing', `${path}: run npm run generate`).toBe(content);
  }
  const chart = join(root, 'runtimeclass/chart');
  const present = readdirSync(chart, { recursive: true, withFileTypes: true, encoding: 'utf8' })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length));
  expect(present.filter((path) => !generated.has(path))).toEqual([]);
});

test('values.yaml holds exactly the defaults', () => {
  expect(parse(readFileSync(join(root, 'runtimeclass/chart/values.yaml'), 'utf8'))).toEqual(standard);
});

test('a runtime without a cloud has one RuntimeClass, and its webhook asks about that one alone', () => {
  const named = (runtime: ChartValues['runtime']) => {
    const objects = runtimeManifests(runtime, standard.namespaces) as { kind: string; metadata: { name: string } }[];
    return {
      classes: objects.filter(({ kind }) => kind === 'RuntimeClass').map(({ metadata }) => metadata.name),
      conditions: JSON.stringify(objects.find(({ kind }) => kind === 'MutatingWebhookConfiguration')),
    };
  };
  const local = named(standard.runtime);
  expect(local.classes).toEqual(['sealpod']);
  expect(local.conditions).not.toContain('sealpod-peer');
  const cloud = named({
    ...standard.runtime,
    peer: { ...standard.runtime.peer, provider: { name: 'aws', region: 'eu-central-1' } },
  });
  expect(cloud.classes).toEqual(['sealpod', 'sealpod-peer']);
  expect(cloud.conditions).toContain('sealpod-peer');
});

test('a change of options changes the pods that have to read them', () => {
  const annotations = (runtime: ChartValues['runtime']) =>
    (runtimeManifests(runtime, standard.namespaces) as { kind: string; spec?: { template?: { metadata: object } } }[])
      .filter(({ kind }) => kind === 'DaemonSet' || kind === 'Deployment')
      .map(({ spec }) => JSON.stringify(spec?.template?.metadata));
  const machines = { ...standard.runtime.machines, maxVcpus: 7 };
  const [before, after] = [annotations(standard.runtime), annotations({ ...standard.runtime, machines })];
  expect(before).toHaveLength(2);
  expect(after.filter((text, index) => text === before[index])).toEqual([]);
  expect(annotations(standard.runtime)).toEqual(before);
});

test('every resource has a structural schema with conditions, and columns that tell readiness', () => {
  for (const definition of resourceDefinitions) {
    const text = JSON.stringify(customResourceDefinition(definition));
    expect(text).toContain('"subresources":{"status":{}}');
    for (const type of ['Ready', 'Progressing', 'Degraded']) expect(text).toContain(`"${type}"`);
    expect(text).not.toContain('"additionalProperties":false');
    const walk = (schema: unknown): void => {
      if (typeof schema !== 'object' || schema === null || Array.isArray(schema)) return;
      const { properties, items, type } = schema as { properties?: object; items?: unknown; type?: unknown };
      if (properties !== undefined || items !== undefined) expect(typeof type).toBe('string');
      for (const member of Object.values(properties ?? {})) walk(member);
      walk(items);
    };
    const crd = customResourceDefinition(definition) as {
      spec: { versions: { schema: { openAPIV3Schema: unknown } }[] };
    };
    walk(crd.spec.versions[0]?.schema.openAPIV3Schema);
  }
});
