import { equals, type Node, when } from '../template/nodes.ts';
import { accessObjects } from './access.ts';
import { admissionObjects } from './admission.ts';
import { values } from './common.ts';
import { controllerObjects } from './controller.ts';
import { namespaceObjects } from './namespaces.ts';
import { networkPolicyObjects } from './network-policies.ts';
import { nodeAgentObjects } from './node-agent.ts';
import { peerRuntimeClassName, runtimeClass, runtimeClassName } from './runtime-class.ts';
import { tenantObjects } from './tenants.ts';
import { uninstallHookObjects } from './uninstall-hook.ts';
import { webhookObjects } from './webhook.ts';

const { runtime } = values;

export const runtimeClassObjects: readonly Node[] = [
  runtimeClass({
    name: runtimeClassName,
    ...runtime.runtimeClass,
    tolerations: when(runtime.runtimeClass.tolerations, runtime.runtimeClass.tolerations),
  }),
  when(
    runtime.peer.provider,
    runtimeClass({
      name: peerRuntimeClassName,
      overheadCpu: runtime.peer.overheadCpu,
      overheadMemory: runtime.peer.overheadMemory,
      nodeSelector: runtime.runtimeClass.nodeSelector,
      tolerations: when(runtime.runtimeClass.tolerations, runtime.runtimeClass.tolerations),
    }),
  ),
];

/** Objects of the runtime: what a SealpodRuntime stands for, and what the chart makes by itself. */
export const runtimeObjects = {
  'node-agent': nodeAgentObjects,
  'runtime-class': runtimeClassObjects,
  webhook: [when(runtime.webhook.enabled, webhookObjects)],
  admission: admissionObjects(values),
} as const satisfies Readonly<Record<string, readonly Node[]>>;

/** All objects of the chart by the name of their template. */
export const chartObjects: Readonly<Record<string, readonly Node[]>> = {
  namespaces: namespaceObjects,
  access: accessObjects,
  ...Object.fromEntries(
    Object.entries(runtimeObjects).map(([name, objects]) => [
      name,
      [when(equals(values.runtimeManagedBy, 'Chart'), objects)],
    ]),
  ),
  controller: [when(values.controller.enabled, controllerObjects)],
  'network-policies': networkPolicyObjects,
  tenants: tenantObjects,
  uninstall: uninstallHookObjects,
};
