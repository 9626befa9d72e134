import type { JsonObject } from '@sealpod/protocol/json';
import { evaluateDocuments } from '../template/evaluate.ts';
import type { Node } from '../template/nodes.ts';
import { type ChartValues, chartSettings } from '../values/chart.ts';
import type { RuntimeValues } from '../values/runtime.ts';
import { defaultOf } from '../values/setting.ts';
import { confidentialExpression, unsupportedPolicy } from './admission.ts';
import { chartObjects, runtimeClassObjects, runtimeObjects } from './installation.ts';
import { runtimeClassName } from './runtime-class.ts';

/** Values of the chart that nobody has set. */
export const standardValues = defaultOf(chartSettings) as unknown as ChartValues;

/** Where the objects of a runtime go. */
export type Namespaces = Pick<ChartValues['namespaces'], 'system' | 'nodes'>;

/** The objects of the runtime with these options, in the order in which they are to be made. */
export function runtimeManifests(runtime: RuntimeValues, namespaces: Namespaces): JsonObject[] {
  const values = { ...standardValues, runtime, namespaces: { ...standardValues.namespaces, ...namespaces } };
  const documents: readonly Node[] = Object.values(runtimeObjects).flat();
  return evaluateDocuments(documents, values as unknown as JsonObject);
}

/** All objects of the chart, as Helm renders them for a release in `releaseNamespace`; CustomResourceDefinitions apart. */
export function chartManifests(values: ChartValues, releaseNamespace: string): JsonObject[] {
  return evaluateDocuments(Object.values(chartObjects).flat(), values as unknown as JsonObject, releaseNamespace);
}

/**
 * What the API server has to know where the runtime is installed on a node by hand: the RuntimeClass, and what is refused
 * at once.
 */
export function singleNodeManifests(): JsonObject[] {
  const [ofNode] = runtimeClassObjects;
  const policy = unsupportedPolicy(confidentialExpression([runtimeClassName]));
  return evaluateDocuments(
    [...(ofNode === undefined ? [] : [ofNode]), ...policy],
    standardValues as unknown as JsonObject,
  );
}
