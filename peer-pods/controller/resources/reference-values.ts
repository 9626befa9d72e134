import { isDeepStrictEqual } from 'node:util';
import { keyBrokerUrl, type ReferenceValuesSpec } from '@sealpod/deployment';
import { KbsClient } from '@sealpod/kbs-client';
import { signAdminToken } from '@sealpod/kbs-client/token';
import { SealpodError } from '@sealpod/protocol/errors';
import { fixOf } from '@sealpod/protocol/reason-codes';
import { degraded, progressing, ready, type Verdict } from '../kubernetes/conditions.ts';
import { type KubernetesObject, referenceTo } from '../kubernetes/objects.ts';
import type { Outcome } from '../kubernetes/work-queue.ts';
import { type Parts, soonMs } from '../parts.ts';
import type { PodVmImage } from './pod-vm-image.ts';
import { writeStatus } from './status.ts';
import { readControllerKey, type TrustService } from './trust-service.ts';

const apiVersion = 'sealpod.io/v1alpha1';
const finalizer = 'sealpod.io/remove-values';
const tokenSeconds = 60;

/** What was registered, and under which version of the key broker. */
interface RegisteredValue {
  readonly id: string;
  readonly version: number;
}

interface ReferenceValues extends KubernetesObject {
  readonly spec: ReferenceValuesSpec;
  readonly status?: {
    readonly observedGeneration?: number;
    readonly values?: readonly RegisteredValue[];
  };
}

interface StoredValue {
  readonly id: string;
  readonly value: unknown;
  readonly version: number;
  readonly expiresAt?: string | null;
}

type Found<T> = { readonly found: T } | { readonly verdict: Verdict };

const address = (id: string): string => `/admin/v1/reference-values/${encodeURIComponent(id)}`;

/**
 * Registers values with the key broker. What somebody else has changed there since is told, and not undone: the key broker's
 * owner may know better than this cluster. A change of the specification is an instruction, and replaces it.
 */
export async function reconcileReferenceValues(parts: Parts, namespace: string, name: string): Promise<Outcome> {
  const { client } = parts;
  const values = await client.get<ReferenceValues>({ apiVersion, kind: 'ReferenceValues', namespace, name });
  if (values === undefined) return {};
  if (values.metadata.deletionTimestamp !== undefined) return remove(parts, values);
  const finalizers = values.metadata.finalizers ?? [];
  if (!finalizers.includes(finalizer)) await setFinalizers(parts, values, [...finalizers, finalizer]);
  const registered = values.status?.values ?? [];
  const outcome = await register(parts, values).catch((thrown: unknown) => {
    if (!(thrown instanceof SealpodError) || thrown.code === 'CONTROL_PLANE') throw thrown;
    const reason = thrown.code === 'KBS_UNREACHABLE' ? 'KeyBrokerUnreachable' : 'KeyBrokerRefused';
    return { verdict: degraded(reason, `${thrown.code}: ${thrown.message}; ${fixOf(thrown)}`), registered };
  });
  await writeStatus(parts, values, outcome.verdict, {
    values: outcome.registered,
    registered: outcome.verdict.state === 'ready' ? outcome.registered.length : 0,
  });
  return outcome.verdict.state === 'ready' ? {} : { againAfterMs: soonMs };
}

async function register(
  parts: Parts,
  values: ReferenceValues,
): Promise<{ readonly verdict: Verdict; readonly registered: readonly RegisteredValue[] }> {
  const registered = values.status?.values ?? [];
  const wanted = await wantedValues(parts, values);
  if ('verdict' in wanted) return { ...wanted, registered };
  const broker = await openKeyBroker(parts, values);
  if ('verdict' in broker) return { ...broker, registered };
  const { found: kbs } = broker;
  const instructed = values.status?.observedGeneration !== values.metadata.generation;
  const expiresAt = values.spec.expiresAt === '' ? undefined : new Date(values.spec.expiresAt).toISOString();
  const now: RegisteredValue[] = [];
  const mismatches: string[] = [];
  for (const [id, value] of wanted.found) {
    const stored = await read(kbs, id);
    const same = isDeepStrictEqual(stored?.value, value) && (stored?.expiresAt ?? undefined) === expiresAt;
    const before = registered.find((item) => item.id === id);
    if (stored !== undefined && same) {
      now.push({ id, version: stored.version });
    } else if (instructed || before === undefined) {
      const written = (await kbs.put(address(id), {
        value,
        ...(expiresAt === undefined ? {} : { expiresAt }),
      })) as StoredValue;
      now.push({ id, version: written.version });
    } else {
      now.push(before);
      const is = stored === undefined ? 'is gone' : `is ${JSON.stringify(stored.value)} in version ${stored.version}`;
      mismatches.push(`${id} ${is}, registered was version ${before.version}`);
    }
  }
  for (const { id, version } of registered.filter((item) => !wanted.found.has(item.id))) {
    await removeValue(kbs, id, version);
  }
  if (mismatches.length === 0) return { verdict: ready(`${now.length} values are registered`), registered: now };
  const fix = 'put it right in the key broker, or change the specification to register it again';
  return { verdict: degraded('Mismatch', `${mismatches.join('; ')}; ${fix}`), registered: now };
}

/** Values by their ids: the union of what images and the specification say. */
async function wantedValues({ client }: Parts, values: ReferenceValues): Promise<Found<ReadonlyMap<string, string[]>>> {
  const wanted = new Map<string, Set<string>>();
  const add = (list: ReferenceValuesSpec['values']): void => {
    for (const { id, values: accepted } of list) {
      wanted.set(id, new Set([...(wanted.get(id) ?? []), ...accepted]));
    }
  };
  for (const name of values.spec.podVmImages) {
    const image = await client.get<PodVmImage>({ apiVersion, kind: 'PodVmImage', name });
    if (image === undefined) {
      return { verdict: degraded('PodVmImageMissing', `there is no PodVmImage ${name}; make it, or do not name it`) };
    }
    add(image.spec.referenceValues);
  }
  add(values.spec.values);
  const { namespace = '' } = values.metadata;
  const { items } = await client.list<ReferenceValues>(apiVersion, 'ReferenceValues', { namespace });
  for (const other of items.filter((item) => isBefore(item, values))) {
    const id = (other.status?.values ?? []).find((item) => wanted.has(item.id))?.id;
    if (id === undefined) continue;
    const message = `${id} is registered by ReferenceValues ${other.metadata.name}; name it in one of both`;
    return { verdict: degraded('Conflict', message) };
  }
  return { found: new Map([...wanted].map(([id, accepted]) => [id, [...accepted]])) };
}

/** Whether `other` is older and about the same TrustService: of two, the older one has a value. */
function isBefore(other: ReferenceValues, values: ReferenceValues): boolean {
  if (other.metadata.uid === values.metadata.uid) return false;
  if (other.spec.trustService.name !== values.spec.trustService.name) return false;
  const age = ({ metadata }: ReferenceValues): string => `${metadata.creationTimestamp ?? ''} ${metadata.name}`;
  return age(other) < age(values);
}

/** A client with the role operator. Each request has a token of its own, which lives for a minute. */
async function openKeyBroker(parts: Parts, values: ReferenceValues): Promise<Found<KbsClient>> {
  const { client } = parts;
  const { namespace = '', name: ofValues } = values.metadata;
  const { name } = values.spec.trustService;
  const service = await client.get<TrustService & { readonly status?: { readonly certificate?: string } }>({
    apiVersion,
    kind: 'TrustService',
    namespace,
    name,
  });
  if (service === undefined) {
    return {
      verdict: degraded('TrustServiceMissing', `there is no TrustService ${name} in namespace ${namespace}; make it`),
    };
  }
  if (!service.spec.referenceValues) {
    const message = `TrustService ${name} does not let the controller register values: set referenceValues, or use \`sealpod refvalue put\``;
    return { verdict: degraded('NotPermitted', message) };
  }
  const privateKey = await readControllerKey(parts, namespace, name);
  const certificatePem = service.status?.certificate;
  if (privateKey === undefined || certificatePem === undefined) {
    return { verdict: progressing('TrustServiceStarting', `TrustService ${name} is being made`) };
  }
  const subject = `controller:ReferenceValues/${namespace}/${ofValues}`;
  const url = parts.keyBrokerUrl?.(namespace, name) ?? keyBrokerUrl({ name, namespace, spec: service.spec }, false);
  const token = () => signAdminToken({ privateKey, role: 'operator', subject, ttlSeconds: tokenSeconds });
  return { found: new KbsClient({ url, certificatePem, token }) };
}

async function read(kbs: KbsClient, id: string): Promise<StoredValue | undefined> {
  try {
    return (await kbs.get(address(id))) as StoredValue;
  } catch (thrown) {
    if (isAbsent(thrown)) return undefined;
    throw thrown;
  }
}

/** Deletes a value that is still the one that was registered. */
async function removeValue(kbs: KbsClient, id: string, version: number): Promise<void> {
  const stored = await read(kbs, id);
  if (stored?.version === version) await kbs.delete(address(id));
}

function isAbsent(thrown: unknown): boolean {
  return thrown instanceof SealpodError && (thrown.code === 'NOT_FOUND' || thrown.code === 'RV_NOT_LOADED');
}

async function remove(parts: Parts, values: ReferenceValues): Promise<Outcome> {
  const finalizers = values.metadata.finalizers ?? [];
  if (!finalizers.includes(finalizer)) return {};
  const registered = values.status?.values ?? [];
  const broker = registered.length === 0 ? undefined : await openKeyBroker(parts, values);
  // Without the key broker, or its permission, there is nothing left that could be removed.
  if (broker !== undefined && 'found' in broker) {
    for (const { id, version } of registered) await removeValue(broker.found, id, version);
  }
  await setFinalizers(
    parts,
    values,
    finalizers.filter((name) => name !== finalizer),
  );
  return {};
}

async function setFinalizers({ client }: Parts, values: ReferenceValues, finalizers: readonly string[]): Promise<void> {
  const { resourceVersion } = values.metadata;
  await client.merge(referenceTo(values), { metadata: { finalizers, resourceVersion } });
}
