import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import {
  keyBrokerHosts,
  keyBrokerManifests,
  keyBrokerNames,
  keyBrokerUrl,
  type TrustServiceSpec,
} from '@sealpod/deployment';
import { createPinnedCertificate, isCertificateFor, type KeyPair } from '../certificates.ts';
import { degraded, progressing, ready, type Verdict } from '../kubernetes/conditions.ts';
import { type KubernetesObject, nameOf, ownedBy, referenceTo } from '../kubernetes/objects.ts';
import type { Outcome } from '../kubernetes/work-queue.ts';
import { type Parts, soonMs } from '../parts.ts';
import { troubles } from './pods.ts';
import { refusedVerdict, writeStatus } from './status.ts';

/** Guests pin the key, so that the certificate's end would only be an outage. */
const lifetimeDays = 3650;
const renewalDays = 365;

export interface TrustService extends KubernetesObject {
  readonly spec: TrustServiceSpec;
}

interface Secret extends KubernetesObject {
  readonly data?: Readonly<Record<string, string>>;
}

interface StatefulSet extends KubernetesObject {
  readonly status?: {
    readonly observedGeneration?: number;
    readonly readyReplicas?: number;
    readonly currentRevision?: string;
    readonly updateRevision?: string;
  };
}

/** Makes the key broker of a TrustService, and says where it is and which certificate it has. */
export async function reconcileTrustService(parts: Parts, namespace: string, name: string): Promise<Outcome> {
  const { client, config } = parts;
  const reference = { apiVersion: 'sealpod.io/v1alpha1', kind: 'TrustService', namespace, name };
  const service = await client.get<TrustService>(reference);
  // What it owns goes with it.
  if (service === undefined || service.metadata.deletionTimestamp !== undefined) return {};
  const { certificate } = await ensureCertificate(parts, service);
  const controllerKey = service.spec.referenceValues ? publicKeyOf(await ensureKey(parts, service)) : undefined;
  if (controllerKey === undefined) {
    await client.delete({ ...reference, apiVersion: 'v1', kind: 'Secret', name: keyBrokerNames(name).administrator });
  }
  const options = {
    name,
    namespace,
    spec: service.spec,
    certificate,
    ...(controllerKey === undefined ? {} : { controllerKey }),
  };
  const manifests = keyBrokerManifests(options, config) as unknown as readonly KubernetesObject[];
  const refused = await applyAll(parts, service, manifests);
  const verdict = refused ?? (await look(parts, service));
  await writeStatus(parts, service, verdict, {
    url: keyBrokerUrl(options, true),
    certificate,
    // A merge patch takes a member away by null.
    administratorKey: controllerKey ?? null,
  });
  return verdict.state === 'ready' ? {} : { againAfterMs: soonMs };
}

async function applyAll(
  { client }: Parts,
  service: TrustService,
  manifests: readonly KubernetesObject[],
): Promise<Verdict | undefined> {
  const owner = ownedBy(service);
  for (const object of manifests) {
    const kept = object.kind === 'PersistentVolumeClaim' && service.spec.storage.onDelete === 'Retain';
    try {
      await client.apply({ ...object, metadata: { ...object.metadata, ownerReferences: kept ? [] : [owner] } });
    } catch (thrown) {
      return refusedVerdict(thrown, nameOf(referenceTo(object)));
    }
  }
  return undefined;
}

async function look(parts: Parts, service: TrustService): Promise<Verdict> {
  const { name, namespace = '' } = service.metadata;
  const { broker } = keyBrokerNames(name);
  const reference = { apiVersion: 'apps/v1', kind: 'StatefulSet', namespace, name: broker };
  const set = await parts.client.get<StatefulSet>(reference);
  const { status = {}, metadata } = set ?? {};
  const current =
    status.observedGeneration === metadata?.generation && status.currentRevision === status.updateRevision;
  if (current && (status.readyReplicas ?? 0) > 0) return ready('the key broker answers');
  const found = await troubles(parts, namespace, `sealpod.io/trust-service=${name}`);
  if (found.length > 0) return degraded('NotRunning', found.join('; '));
  return progressing('Starting', 'the key broker is being started');
}

const decode = (value: string | undefined): string => Buffer.from(value ?? '', 'base64').toString('utf8');
const encode = (value: string): string => Buffer.from(value, 'utf8').toString('base64');

async function ensureCertificate(parts: Parts, service: TrustService): Promise<KeyPair> {
  const { client, now, log } = parts;
  const { name, namespace = '' } = service.metadata;
  const hosts = keyBrokerHosts({ name, namespace, spec: service.spec });
  const secretName = keyBrokerNames(name).certificate;
  const { data = {} } =
    (await client.get<Secret>({ apiVersion: 'v1', kind: 'Secret', namespace, name: secretName })) ?? {};
  const [certificate, privateKey] = [decode(data['tls.crt']), decode(data['tls.key'])];
  if (privateKey !== '' && isCertificateFor(certificate, hosts, now(), renewalDays)) return { certificate, privateKey };
  const lifetime = { now: now(), days: lifetimeDays };
  const made = await createPinnedCertificate(hosts, lifetime, privateKey === '' ? undefined : privateKey);
  await client.apply(
    secret(service, secretName, 'kubernetes.io/tls', { 'tls.crt': made.certificate, 'tls.key': made.privateKey }),
  );
  log.info(
    { service: `${namespace}/${name}`, hosts, newKey: privateKey === '' },
    'a certificate was made for a key broker',
  );
  return made;
}

/** The key that the controller signs administrator tokens with: PKCS#8 PEM. */
async function ensureKey(parts: Parts, service: TrustService): Promise<string> {
  const { name, namespace = '' } = service.metadata;
  const present = await readControllerKey(parts, namespace, name);
  if (present !== undefined) return present;
  const { privateKey } = generateKeyPairSync('ed25519');
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  await parts.client.apply(secret(service, keyBrokerNames(name).administrator, 'Opaque', { 'key.pem': pem }));
  return pem;
}

/** The controller's key for a TrustService; undefined where it has none. */
export async function readControllerKey(
  { client }: Parts,
  namespace: string,
  name: string,
): Promise<string | undefined> {
  const secretName = keyBrokerNames(name).administrator;
  const found = await client.get<Secret>({ apiVersion: 'v1', kind: 'Secret', namespace, name: secretName });
  const pem = decode(found?.data?.['key.pem']);
  return pem === '' ? undefined : pem;
}

function publicKeyOf(privateKey: string): string {
  return createPublicKey(privateKey).export({ type: 'spki', format: 'pem' }).toString();
}

function secret(
  service: TrustService,
  name: string,
  type: string,
  data: Readonly<Record<string, string>>,
): KubernetesObject {
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: {
      name,
      namespace: service.metadata.namespace ?? '',
      labels: { 'app.kubernetes.io/part-of': 'sealpod' },
      ownerReferences: [ownedBy(service)],
    },
    type,
    data: Object.fromEntries(Object.entries(data).map(([key, value]) => [key, encode(value)])),
  };
}
