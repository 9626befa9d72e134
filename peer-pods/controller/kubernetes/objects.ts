/** An object of the API server, as far as everything here looks at it. */
export interface KubernetesObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: Metadata;
  readonly [member: string]: unknown;
}

export interface Metadata {
  readonly name: string;
  readonly namespace?: string;
  readonly uid?: string;
  readonly resourceVersion?: string;
  readonly generation?: number;
  readonly creationTimestamp?: string;
  readonly deletionTimestamp?: string;
  readonly finalizers?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly ownerReferences?: readonly OwnerReference[];
}

export interface OwnerReference {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
  readonly controller?: boolean;
}

/** Names an object. */
export interface ObjectReference {
  readonly apiVersion: string;
  readonly kind: string;
  readonly namespace?: string;
  readonly name: string;
}

export function referenceTo({ apiVersion, kind, metadata: { name, namespace } }: KubernetesObject): ObjectReference {
  return { apiVersion, kind, name, ...(namespace === undefined ? {} : { namespace }) };
}

/** `kind namespace/name`, as it is said to people. */
export function nameOf({ kind, namespace, name }: Omit<ObjectReference, 'apiVersion'>): string {
  return namespace === undefined ? `${kind} ${name}` : `${kind} ${namespace}/${name}`;
}

/** What makes an object go when `owner` goes. */
export function ownedBy({ apiVersion, kind, metadata: { name, uid = '' } }: KubernetesObject): OwnerReference {
  return { apiVersion, kind, name, uid, controller: true };
}

/** Where the API server keeps the objects of a kind. */
const plurals: Readonly<Record<string, string>> = {
  'v1/ConfigMap': 'configmaps',
  'v1/Secret': 'secrets',
  'v1/Service': 'services',
  'v1/Pod': 'pods',
  'v1/PersistentVolumeClaim': 'persistentvolumeclaims',
  'apps/v1/DaemonSet': 'daemonsets',
  'apps/v1/Deployment': 'deployments',
  'apps/v1/StatefulSet': 'statefulsets',
  'policy/v1/PodDisruptionBudget': 'poddisruptionbudgets',
  'coordination.k8s.io/v1/Lease': 'leases',
  'networking.k8s.io/v1/NetworkPolicy': 'networkpolicies',
  'node.k8s.io/v1/RuntimeClass': 'runtimeclasses',
  'admissionregistration.k8s.io/v1/MutatingWebhookConfiguration': 'mutatingwebhookconfigurations',
  'admissionregistration.k8s.io/v1/ValidatingWebhookConfiguration': 'validatingwebhookconfigurations',
  'admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy': 'validatingadmissionpolicies',
  'admissionregistration.k8s.io/v1/ValidatingAdmissionPolicyBinding': 'validatingadmissionpolicybindings',
  'sealpod.io/v1alpha1/SealpodRuntime': 'sealpodruntimes',
  'sealpod.io/v1alpha1/TrustService': 'trustservices',
  'sealpod.io/v1alpha1/PodVmImage': 'podvmimages',
  'sealpod.io/v1alpha1/ReferenceValues': 'referencevalues',
};

/** The path of a kind's objects, in a namespace or in the cluster. @throws TypeError for a kind that is not known here */
export function collectionPath(apiVersion: string, kind: string, namespace: string | undefined): string {
  const plural = plurals[`${apiVersion}/${kind}`];
  if (plural === undefined) throw new TypeError(`no path is known for ${apiVersion} ${kind}`);
  const root = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
  return namespace === undefined ? `${root}/${plural}` : `${root}/namespaces/${namespace}/${plural}`;
}
