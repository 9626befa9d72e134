import { expect, test } from 'vitest';
import { chartManifests, standardValues } from './manifests.ts';

interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
  readonly resourceNames?: readonly string[];
}

interface Role {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly rules?: readonly Rule[];
  readonly roleRef?: { readonly kind: string; readonly name: string };
  readonly subjects?: readonly { readonly name: string; readonly namespace: string }[];
}

const values = { ...standardValues, controller: { ...standardValues.controller, trustNamespaces: ['trust'] } };
const objects = chartManifests(values, 'default') as unknown as readonly Role[];
const roles = objects.filter(({ kind }) => kind === 'Role' || kind === 'ClusterRole');

/** What each ServiceAccount may do: one line a rule, with where it holds. */
function grants(): Record<string, string[]> {
  const all: Record<string, string[]> = {};
  for (const { kind, metadata } of objects) {
    if (kind === 'ServiceAccount') all[`${metadata.namespace}/${metadata.name}`] = [];
  }
  for (const { roleRef, subjects = [], metadata } of objects) {
    const role = roles.find(
      ({ kind, metadata: of }) =>
        kind === roleRef?.kind && of.name === roleRef.name && of.namespace === metadata.namespace,
    );
    for (const { namespace, name } of subjects) {
      for (const { apiGroups, resources, verbs, resourceNames } of role?.rules ?? []) {
        const named = resourceNames === undefined ? '' : ` [${resourceNames.join(' ')}]`;
        const what = resources.map((resource) => [resource, apiGroups[0]].filter(Boolean).join('.')).join(' ');
        all[`${namespace}/${name}`]?.push(`${metadata.namespace ?? '*'}: ${verbs.join(' ')} ${what}${named}`);
      }
    }
  }
  return all;
}

test('S-22: what each ServiceAccount may do', () => {
  expect(grants()).toMatchInlineSnapshot(`
    {
      "sealpod-nodes/sealpod-node-agent": [
        "*: get patch nodes",
        "*: patch nodes/status",
        "*: create patch events.events.k8s.io",
      ],
      "sealpod-system/sealpod-controller": [
        "*: get list watch patch sealpodruntimes.sealpod.io podvmimages.sealpod.io",
        "*: get patch sealpodruntimes/status.sealpod.io podvmimages/status.sealpod.io",
        "*: get patch delete mutatingwebhookconfigurations.admissionregistration.k8s.io validatingwebhookconfigurations.admissionregistration.k8s.io [sealpod]",
        "*: patch delete validatingadmissionpolicies.admissionregistration.k8s.io validatingadmissionpolicybindings.admissionregistration.k8s.io [sealpod.io-unsupported sealpod-image-digests sealpod-confidential-namespaces]",
        "*: create mutatingwebhookconfigurations.admissionregistration.k8s.io validatingwebhookconfigurations.admissionregistration.k8s.io validatingadmissionpolicies.admissionregistration.k8s.io validatingadmissionpolicybindings.admissionregistration.k8s.io",
        "*: patch delete runtimeclasses.node.k8s.io [sealpod sealpod-peer]",
        "*: create runtimeclasses.node.k8s.io",
        "sealpod-nodes: get list watch create patch delete daemonsets.apps",
        "sealpod-nodes: create patch delete configmaps",
        "sealpod-nodes: list pods",
        "sealpod-system: get list watch create patch delete deployments.apps",
        "sealpod-system: create patch delete poddisruptionbudgets.policy",
        "sealpod-system: create leases.coordination.k8s.io",
        "sealpod-system: get update leases.coordination.k8s.io [sealpod-controller]",
        "sealpod-system: get create patch delete secrets",
        "sealpod-system: create patch delete configmaps services persistentvolumeclaims",
        "sealpod-system: list pods",
        "sealpod-system: get list watch create patch delete statefulsets.apps",
        "sealpod-system: create patch delete networkpolicies.networking.k8s.io",
        "sealpod-system: get list watch patch trustservices.sealpod.io referencevalues.sealpod.io",
        "sealpod-system: get patch trustservices/status.sealpod.io referencevalues/status.sealpod.io",
        "trust: get create patch delete secrets",
        "trust: create patch delete configmaps services persistentvolumeclaims",
        "trust: list pods",
        "trust: get list watch create patch delete statefulsets.apps",
        "trust: create patch delete networkpolicies.networking.k8s.io",
        "trust: get list watch patch trustservices.sealpod.io referencevalues.sealpod.io",
        "trust: get patch trustservices/status.sealpod.io referencevalues/status.sealpod.io",
      ],
      "sealpod-system/sealpod-uninstall": [
        "*: get list delete sealpodruntimes.sealpod.io",
        "sealpod-nodes: get patch daemonsets.apps [sealpod-node-agent]",
        "sealpod-nodes: list pods",
      ],
      "sealpod-system/sealpod-webhook": [],
    }
  `);
});

test('S-22: no wildcards, nothing about roles, and no Secrets of the whole cluster', () => {
  expect(roles.length).toBeGreaterThan(5);
  for (const { kind, rules = [] } of roles) {
    for (const { apiGroups, resources, verbs } of rules) {
      for (const list of [apiGroups, resources, verbs]) expect(list).not.toContain('*');
      expect(apiGroups).not.toContain('rbac.authorization.k8s.io');
      for (const verb of ['bind', 'escalate', 'impersonate', 'deletecollection']) expect(verbs).not.toContain(verb);
      if (resources.includes('secrets')) {
        expect(kind).toBe('Role');
        expect(verbs).not.toContain('list');
        expect(verbs).not.toContain('watch');
      }
    }
  }
});

test('only pods that speak to the API server have a token', () => {
  const specs = objects.flatMap((object) => {
    const { spec } = object as unknown as { spec?: { template?: { spec: Record<string, unknown> } } };
    return spec?.template === undefined ? [] : [spec.template.spec];
  });
  const tokens = specs.map((spec) => [spec['serviceAccountName'], spec['automountServiceAccountToken'] ?? true]);
  expect(tokens.sort()).toEqual([
    ['sealpod-controller', true],
    ['sealpod-node-agent', true],
    ['sealpod-uninstall', true],
    ['sealpod-webhook', false],
  ]);
});

test('all but the node agent is held to the Pod Security Standard restricted', () => {
  for (const object of objects) {
    const { spec } = object as unknown as {
      spec?: { template?: { spec: { hostPID?: boolean; securityContext?: object; containers: object[] } } };
    };
    if (spec?.template === undefined || object.metadata.name === 'sealpod-node-agent') continue;
    expect(spec.template.spec.hostPID).toBeUndefined();
    expect(spec.template.spec.securityContext).toMatchObject({
      runAsNonRoot: true,
      runAsUser: 65532,
      seccompProfile: { type: 'RuntimeDefault' },
    });
    for (const container of spec.template.spec.containers) {
      expect(container).toMatchObject({
        securityContext: {
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        },
        resources: { requests: expect.anything(), limits: expect.anything() },
      });
    }
  }
});
