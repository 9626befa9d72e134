import type { JsonObject } from '@sealpod/protocol/json';
import { partOf } from '../objects/common.ts';
import { isRequired, schemaOf } from '../values/json-schema.ts';
import type { GroupSetting, Rule } from '../values/setting.ts';
import {
  podVmImageSettings,
  referenceValuesSettings,
  sealpodRuntimeSettings,
  trustServiceSettings,
} from './settings.ts';
import { podVmImageStatus, referenceValuesStatus, runtimeStatus, trustServiceStatus } from './status.ts';

export const apiGroup = 'sealpod.io';
export const apiVersion = 'v1alpha1';

/** A resource of `sealpod.io`. */
export interface ResourceDefinition {
  readonly kind: string;
  readonly plural: string;
  readonly shortNames: readonly string[];
  readonly scope: 'Namespaced' | 'Cluster';
  readonly description: string;
  readonly spec: GroupSetting;
  readonly status: JsonObject;
  /** Columns of `kubectl get` before readiness and age: title → JSON path. */
  readonly columns: Readonly<Record<string, string>>;
  /** Rules about the whole object. */
  readonly rules?: readonly Rule[];
}

export const resourceDefinitions: readonly ResourceDefinition[] = [
  {
    kind: 'SealpodRuntime',
    plural: 'sealpodruntimes',
    shortNames: ['spr'],
    scope: 'Cluster',
    description:
      'The runtime on the nodes of this cluster: node agent, RuntimeClasses, webhook and policies. There is one, named sealpod. The chart makes the same objects by itself unless runtimeManagedBy is Resource.',
    spec: sealpodRuntimeSettings,
    status: runtimeStatus,
    columns: { Nodes: '.status.nodes.ready', Desired: '.status.nodes.desired' },
    rules: [
      { rule: "self.metadata.name == 'sealpod'", message: 'there is one SealpodRuntime, and its name is sealpod' },
    ],
  },
  {
    kind: 'TrustService',
    plural: 'trustservices',
    shortNames: ['trust'],
    scope: 'Namespaced',
    description:
      'A key broker in this cluster. Whoever controls the cluster controls it: run it in a cluster that you trust, which need not be the one whose pods it serves.',
    spec: trustServiceSettings,
    status: trustServiceStatus,
    columns: { URL: '.status.url' },
    rules: [
      {
        rule: 'size(self.metadata.name) <= 40',
        message: 'the name is at most 40 characters long: names of other objects are made of it',
      },
    ],
  },
  {
    kind: 'PodVmImage',
    plural: 'podvmimages',
    shortNames: ['pvmi'],
    scope: 'Cluster',
    description: 'An image that pod VMs boot, placed on every node that has the runtime.',
    spec: podVmImageSettings,
    status: podVmImageStatus,
    columns: { Digest: '.spec.digest', Nodes: '.status.ready', Desired: '.status.desired' },
    rules: [
      {
        rule: 'size(self.metadata.name) <= 40',
        message: 'the name is at most 40 characters long: names of other objects are made of it',
      },
    ],
  },
  {
    kind: 'ReferenceValues',
    plural: 'referencevalues',
    shortNames: ['rv'],
    scope: 'Namespaced',
    description: 'What measured components must be, registered with a TrustService that allows it.',
    spec: referenceValuesSettings,
    status: referenceValuesStatus,
    columns: { Service: '.spec.trustService.name', Registered: '.status.registered' },
  },
];

const integerColumns = ['Nodes', 'Desired', 'Registered'];

/** The CustomResourceDefinition of a resource: structural, with rules, defaults and conditions. */
export function customResourceDefinition(definition: ResourceDefinition): JsonObject {
  const { kind, plural, shortNames, scope, spec, status, columns, rules = [] } = definition;
  const condition = (name: string, member: string): string => `.status.conditions[?(@.type=="${name}")].${member}`;
  const required = isRequired(spec) ? ['spec'] : [];
  const schema: JsonObject = {
    type: 'object',
    description: definition.description,
    ...(required.length === 0 ? {} : { required }),
    properties: {
      apiVersion: { type: 'string' },
      kind: { type: 'string' },
      metadata: { type: 'object' },
      spec: { ...schemaOf(spec, 'crd'), ...(required.length === 0 ? { default: {} } : {}) },
      status,
    },
    ...(rules.length === 0 ? {} : { 'x-kubernetes-validations': rules.map((rule) => ({ ...rule })) }),
  };
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${plural}.${apiGroup}`, labels: { ...partOf } },
    spec: {
      group: apiGroup,
      scope,
      names: { kind, listKind: `${kind}List`, plural, singular: kind.toLowerCase(), shortNames: [...shortNames] },
      versions: [
        {
          name: apiVersion,
          served: true,
          storage: true,
          subresources: { status: {} },
          additionalPrinterColumns: [
            ...Object.entries(columns).map(([name, jsonPath]) => ({
              name,
              type: integerColumns.includes(name) ? 'integer' : 'string',
              jsonPath,
            })),
            { name: 'Ready', type: 'string', jsonPath: condition('Ready', 'status') },
            { name: 'Reason', type: 'string', jsonPath: condition('Ready', 'reason') },
            { name: 'Message', type: 'string', jsonPath: condition('Ready', 'message'), priority: 1 },
            { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp' },
          ],
          schema: { openAPIV3Schema: schema },
        },
      ],
    },
  };
}
