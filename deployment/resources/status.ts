import type { JsonObject } from '@sealpod/protocol/json';

const string = (description: string): JsonObject => ({ type: 'string', description });
export const count = (description: string): JsonObject => ({ type: 'integer', format: 'int64', description });

/** Conditions as every Kubernetes tool reads them. */
const conditions: JsonObject = {
  type: 'array',
  description:
    'Ready, Progressing and Degraded, each with a reason and a message that says what is wrong and what to do.',
  'x-kubernetes-list-type': 'map',
  'x-kubernetes-list-map-keys': ['type'],
  items: {
    type: 'object',
    required: ['type', 'status', 'reason', 'message', 'lastTransitionTime'],
    properties: {
      type: { type: 'string', enum: ['Ready', 'Progressing', 'Degraded'] },
      status: { type: 'string', enum: ['True', 'False', 'Unknown'] },
      reason: { type: 'string', pattern: '^[A-Za-z][A-Za-z0-9_]*$', maxLength: 128 },
      message: { type: 'string', maxLength: 4096 },
      lastTransitionTime: { type: 'string', format: 'date-time' },
      observedGeneration: { type: 'integer', format: 'int64' },
    },
  },
};

/** A status with conditions and these further members. */
export function statusSchema(members: JsonObject): JsonObject {
  return {
    type: 'object',
    description: 'What was found. Written by the controller.',
    properties: {
      observedGeneration: count('Generation of the specification that this is about.'),
      conditions,
      ...members,
    },
  };
}

const objectReference: JsonObject = {
  type: 'object',
  required: ['apiVersion', 'kind', 'name'],
  properties: {
    apiVersion: { type: 'string' },
    kind: { type: 'string' },
    namespace: { type: 'string' },
    name: { type: 'string' },
  },
};

export const runtimeStatus = statusSchema({
  nodes: {
    type: 'object',
    description: 'Nodes with the node agent.',
    properties: {
      desired: count('That should have it.'),
      updated: count('That have it as it is now specified.'),
      ready: count('On which everything serves.'),
    },
  },
  objects: {
    type: 'array',
    description: 'Everything that was made. What is not specified any more is deleted by this list.',
    items: objectReference,
    maxItems: 64,
  },
});

export const trustServiceStatus = statusSchema({
  url: string('Address for guests, as initdata names it.'),
  certificate: string('Certificate of the key broker, PEM: guests pin its key.'),
  administratorKey: string('Public key, PEM, of the tokens by which the controller registers reference values.'),
});

export const podVmImageStatus = statusSchema({
  ready: count('Number of nodes that have the image.'),
  desired: count('Number of nodes that should have it.'),
  nodes: {
    type: 'array',
    description: 'Each node that should have it.',
    'x-kubernetes-list-type': 'map',
    'x-kubernetes-list-map-keys': ['name'],
    maxItems: 5000,
    items: {
      type: 'object',
      required: ['name', 'ready'],
      properties: {
        name: { type: 'string' },
        ready: { type: 'boolean' },
        message: { type: 'string', maxLength: 1024 },
      },
    },
  },
});

export const referenceValuesStatus = statusSchema({
  registered: count('Number of values that the key broker has as they are specified.'),
  values: {
    type: 'array',
    description: 'Each value, with the version that the key broker gave it.',
    'x-kubernetes-list-type': 'map',
    'x-kubernetes-list-map-keys': ['id'],
    maxItems: 256,
    items: {
      type: 'object',
      required: ['id', 'version'],
      properties: { id: { type: 'string' }, version: { type: 'integer', format: 'int64' } },
    },
  },
});
