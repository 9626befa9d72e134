import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { composeInitdata, encodeInitdataAnnotation } from '@sealpod/protocol/initdata';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { ApiServer, clusterPrograms, freePort, type StoredObject } from './api-server.ts';

/*
 * The webhook as a process of its own, asked by a real API server: what it changes, what it refuses, and what happens to
 * confidential and to ordinary pods when it is gone.
 */

const root = fileURLToPath(new URL('../..', import.meta.url));
const webhookProgram = join(root, 'peer-pods/webhook/main.ts');
const initdataAnnotation = 'io.katacontainers.config.hypervisor.cc_init_data';
const hypervisor = 'io.katacontainers.config.hypervisor.';
const vm = 'kata.peerpods.io/vm';
const image = `registry.test/app@sha256:${'a'.repeat(64)}`;

const pod = (spec: object = {}, metadata: object = {}) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'p', namespace: 'default', ...metadata },
  spec: { runtimeClassName: 'sealpod', containers: [{ name: 'c', image }], ...spec },
});
const container = (more: object) => pod({ containers: [{ name: 'c', image, ...more }] });
const annotated = (key: string, value: string) => pod({}, { annotations: { [key]: value } });
/** A policy of the form that sealpod generates, for one container. */
const policyFor = (name: string): string => {
  const data = { containers: { [name]: { image, args: [], env: {}, variables: [], mounts: {} } } };
  return encodeInitdataAnnotation(
    composeInitdata({ data: { 'policy.rego': `package agent_policy\npolicy_data := ${JSON.stringify(data)}\n` } }),
  );
};

const missing =
  clusterPrograms === undefined ? ' (skipped: the cluster is not built, run `sealpod cluster up` once)' : '';
describe.skipIf(clusterPrograms === undefined)(`admission on a real API server${missing}`, () => {
  let server: ApiServer;
  let webhook: ChildProcess | undefined;
  const file = (name: string) => join(server.folder, name);
  const refusalOf = (object: object): string => {
    const answer = server.tryCreate(object);
    return 'refusal' in answer ? answer.refusal : '';
  };
  const stored = (object: object): StoredObject => {
    const answer = server.tryCreate(object);
    if ('refusal' in answer) throw new Error(answer.refusal);
    return answer.object;
  };
  const manifestsOf = (where: readonly string[]): string =>
    execFileSync(
      process.execPath,
      [webhookProgram, '--config', file('config.json'), '--manifests', '--ca', file('crt'), ...where],
      {
        encoding: 'utf8',
      },
    );

  beforeAll(async () => {
    server = await ApiServer.start(clusterPrograms ?? '');
    const port = await freePort();
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1'];
    const names = ['-subj', '/CN=webhook', '-addext', 'subjectAltName=IP:127.0.0.1'];
    execFileSync('openssl', ['req', '-x509', ...curve, ...names, '-keyout', file('key'), '-out', file('crt')], {
      stdio: 'ignore',
    });
    const config = {
      host: '127.0.0.1',
      port,
      certificateFile: file('crt'),
      keyFile: file('key'),
      runtimeClasses: {
        sealpod: { limits: { vcpus: 8, memoryMiB: 4096 } },
        'sealpod-strict': { handler: 'sealpod', requireInitdata: true },
        'sealpod-peer': { handler: 'sealpod', extendedResource: vm },
      },
      defaultRuntimeClass: 'sealpod',
    };
    writeFileSync(file('config.json'), JSON.stringify(config));
    webhook = spawn(process.execPath, [webhookProgram, '--config', file('config.json')], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let log = '';
    webhook.stderr?.on('data', (chunk: Buffer) => {
      log += chunk;
    });
    const runtimeClass = (name: string) => ({
      apiVersion: 'node.k8s.io/v1',
      kind: 'RuntimeClass',
      metadata: { name },
      handler: name === 'plain' ? 'runc' : 'sealpod',
      ...(name === 'plain' ? {} : { overhead: { podFixed: { cpu: '250m', memory: '120Mi' } } }),
    });
    const namespace = (name: string, labels: object) => ({
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name, labels },
    });
    const account = (name: string) => ({
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name: 'default', namespace: name },
    });
    server.apply({
      apiVersion: 'v1',
      kind: 'List',
      items: [
        ...['sealpod', 'sealpod-strict', 'sealpod-peer', 'plain'].map(runtimeClass),
        namespace('sealed', { 'sealpod.io/confidential': 'true' }),
        namespace('bounded', {}),
        account('sealed'),
        account('bounded'),
      ],
    });
    // One that was there before anything was asked, and that would be refused now.
    const early = { name: 'early', finalizers: ['sealpod.io/test'] };
    server.apply(pod({ hostPID: true, containers: [{ name: 'c', image: 'registry.test/app:1' }] }, early));
    await vi.waitFor(() => expect(log).toContain('serving'), { timeout: 60_000 });
    server.apply(JSON.parse(manifestsOf(['--url', `https://127.0.0.1:${port}`])) as object);
    // Policies and webhooks are taken up a moment after they were written.
    await vi.waitFor(() => expect(refusalOf(pod({ hostPID: true }))).toContain('hostPID: '), { timeout: 60_000 });
    const tagged = container({ image: 'registry.test/app:1' });
    await vi.waitFor(() => expect(refusalOf(tagged)).toContain('imageDigest: '), { timeout: 60_000 });
    const plain = pod({ runtimeClassName: 'plain' }, { namespace: 'sealed' });
    await vi.waitFor(() => expect(refusalOf(plain)).toContain('runtimeClass: '), { timeout: 60_000 });
  });
  afterAll(async () => {
    webhook?.kill('SIGKILL');
    await server?.stop();
  });

  it('writes size and handler into the pod, with the overhead that the API server added', () => {
    const resources = { requests: { cpu: '1', memory: '64Mi' } };
    expect(stored(container({ resources }))).toMatchObject({
      metadata: {
        annotations: {
          [`${hypervisor}default_vcpus`]: '2',
          [`${hypervisor}default_memory`]: '184',
          'io.containerd.cri.runtime-handler': 'sealpod',
        },
      },
      spec: { overhead: { cpu: '250m' } },
      // Kubernetes' own judgement of what was kept.
      status: { qosClass: 'Burstable' },
    });
    // Another handler than that of the class is put right.
    expect(stored(annotated('io.containerd.cri.runtime-handler', 'runc'))).toMatchObject({
      metadata: { annotations: { 'io.containerd.cri.runtime-handler': 'sealpod' } },
    });
    const guaranteed = { limits: { cpu: '1', memory: '64Mi' } };
    expect(stored(container({ resources: guaranteed }))).toMatchObject({ status: { qosClass: 'Guaranteed' } });
    expect(stored(pod({ runtimeClassName: 'sealpod-peer' }))).toMatchObject({
      spec: { containers: [{ resources: { requests: { [vm]: '1' }, limits: { [vm]: '1' } } }] },
      status: { qosClass: 'BestEffort' },
    });
  });

  it('counts resources of the pod as a whole, sidecars and init containers as this API server stores them', () => {
    const of = (spec: object) => stored(pod(spec)).metadata.annotations ?? {};
    const limits = (cpu: string, memory: string) => ({ resources: { limits: { cpu, memory } } });
    const whole = of({
      ...limits('2', '512Mi'),
      containers: [
        { name: 'c', image },
        { name: 'd', image },
      ],
    });
    expect([whole[`${hypervisor}default_vcpus`], whole[`${hypervisor}default_memory`]]).toEqual(['3', '632']);
    const sidecar = { name: 's', image, restartPolicy: 'Always', ...limits('1', '64Mi') };
    const init = { name: 'i', image, ...limits('3', '32Mi') };
    const initialised = of({
      initContainers: [sidecar, init],
      containers: [{ name: 'c', image, ...limits('1', '64Mi') }],
    });
    expect([initialised[`${hypervisor}default_vcpus`], initialised[`${hypervisor}default_memory`]]).toEqual([
      '5',
      '248',
    ]);
  });

  it.each<[string, object]>([
    ['hostNetwork', pod({ hostNetwork: true })],
    ['hostPID', pod({ hostPID: true })],
    ['hostIPC', pod({ hostIPC: true })],
    ['shareProcessNamespace', pod({ shareProcessNamespace: true })],
    ['userNamespace', pod({ hostUsers: false })],
    ['hostPath', pod({ volumes: [{ name: 'v', hostPath: { path: '/' } }] })],
    ['privileged', container({ securityContext: { privileged: true } })],
    ['allCapabilities', container({ securityContext: { capabilities: { add: ['ALL'] } } })],
    ['seccompProfile', container({ securityContext: { seccompProfile: { type: 'Unconfined' } } })],
    ['hostPort', container({ ports: [{ containerPort: 80, hostPort: 8080 }] })],
    [
      'mountPropagation',
      pod({
        volumes: [{ name: 'v', emptyDir: {} }],
        containers: [
          { name: 'c', image, volumeMounts: [{ name: 'v', mountPath: '/v', mountPropagation: 'HostToContainer' }] },
        ],
      }),
    ],
    ['imageDigest', container({ image: 'registry.test/app:1' })],
    ['imageDigest', pod({ initContainers: [{ name: 'i', image: 'registry.test/app' }] })],
    ['hypervisorAnnotation', annotated(`${hypervisor}kernel_params`, 'x')],
    ['machineSize', annotated(`${hypervisor}default_memory`, '999999')],
    ['initdata', pod({ runtimeClassName: 'sealpod-strict' })],
    ['initdata', annotated(initdataAnnotation, 'AAAA')],
    ['agentPolicy', annotated(initdataAnnotation, policyFor('other'))],
    ['runtimeClass', pod({ runtimeClassName: 'plain' }, { namespace: 'sealed' })],
  ])('S-17: refuses %s by its name', (rule, object) => {
    expect(refusalOf(object)).toContain(`${rule}: `);
  });

  it('S-30: a confidential namespace gives its pods the default class, with all that belongs to it', () => {
    const object = stored(
      pod(
        { runtimeClassName: null, containers: [{ name: 'c', image, resources: { limits: { memory: '64Mi' } } }] },
        { namespace: 'sealed' },
      ),
    );
    expect(object).toMatchObject({
      spec: { runtimeClassName: 'sealpod', overhead: { memory: '120Mi' } },
      metadata: { annotations: { [`${hypervisor}default_memory`]: '184' } },
    });
    // Elsewhere it is none of the webhook's business.
    expect(stored(pod({ runtimeClassName: null })).spec['runtimeClassName']).toBeUndefined();
  });

  it('UPDATE: another image, a container for debugging, and a resize are judged; what was so before is not', () => {
    server.apply(
      pod(
        {
          containers: [{ name: 'c', image, resources: { requests: { memory: '64Mi' }, limits: { memory: '128Mi' } } }],
        },
        { annotations: { [initdataAnnotation]: policyFor('c') } },
      ),
    );
    const path = '/api/v1/namespaces/default/pods/p';
    const patch = (args: readonly string[], change: object) => {
      const answer = server.ask(['patch', 'pod', ...args, '--patch', JSON.stringify(change)]);
      return 'refusal' in answer ? answer.refusal : 'taken';
    };
    expect(patch(['p'], { spec: { containers: [{ name: 'c', image: 'registry.test/app:2' }] } })).toContain(
      'imageDigest: ',
    );
    expect(patch(['p'], { metadata: { labels: { a: 'b' } } })).toBe('taken');
    const withDebugger = (name: string, of: string) => {
      const now = server.get(path);
      return {
        ...now,
        spec: { ...now.spec, ephemeralContainers: [{ name, image: of, terminationMessagePolicy: 'File' }] },
      };
    };
    expect(server.put(`${path}/ephemeralcontainers`, withDebugger('debugger', 'debug:1'))).toContain('imageDigest: ');
    expect(server.put(`${path}/ephemeralcontainers`, withDebugger('debugger', image))).toMatch(
      /agentPolicy: CreateContainerRequest: OCI\.Annotations\[io\.kubernetes\.cri\.container-name\]: expected \["c"\], actual "debugger"/,
    );
    const resize = (memory: string) =>
      patch(['p', '--subresource', 'resize'], {
        spec: { containers: [{ name: 'c', resources: { limits: { memory } } }] },
      });
    expect(resize('4Gi')).toContain('machineSize: ');
    expect(resize('100Mi')).toBe('taken');
    // The one that was there before.
    expect(patch(['early'], { metadata: { labels: { a: 'b' } } })).toBe('taken');
    expect(patch(['early'], { spec: { containers: [{ name: 'c', image: 'registry.test/app:2' }] } })).toContain(
      'imageDigest: ',
    );
    expect(patch(['early'], { metadata: { finalizers: [] } })).toBe('taken');
  });

  it('S-33: sizes follow the LimitRange of the namespace, and a quota on machines is told', async () => {
    const inNamespace = (kind: string, spec: object) => ({
      apiVersion: 'v1',
      kind,
      metadata: { name: 'q', namespace: 'bounded' },
      spec,
    });
    server.apply(
      inNamespace('LimitRange', { limits: [{ type: 'Container', default: { cpu: '2', memory: '256Mi' } }] }),
    );
    const bounded = stored(pod({}, { namespace: 'bounded' })).metadata.annotations ?? {};
    expect([bounded[`${hypervisor}default_vcpus`], bounded[`${hypervisor}default_memory`]]).toEqual(['3', '376']);
    // No controller counts here.
    const allow = (machines: string): void => {
      const hard = { [`requests.${vm}`]: machines };
      server.apply(inNamespace('ResourceQuota', { hard }));
      const path = '/api/v1/namespaces/bounded/resourcequotas/q';
      const quota = { ...server.get(path), status: { hard, used: { [`requests.${vm}`]: '0' } } };
      expect(server.put(`${path}/status`, quota)).toBe('');
    };
    const peer = (name: string) => pod({ runtimeClassName: 'sealpod-peer' }, { name, namespace: 'bounded' });
    // Quotas are taken up a moment after they were written; one that is not would let both in, uncounted.
    allow('0');
    await vi.waitFor(() => expect(refusalOf(peer('first'))).toContain('exceeded quota'), { timeout: 60_000 });
    allow('1');
    await vi.waitFor(() => server.apply(peer('first')), { timeout: 60_000 });
    expect(refusalOf(peer('second'))).toContain(
      `exceeded quota: q, requested: requests.${vm}=1, used: requests.${vm}=1`,
    );
  });

  it('G-27: when the webhook is gone, confidential pods are refused and ordinary ones are not', async () => {
    const ended = new Promise((resolve) => webhook?.once('exit', resolve));
    webhook?.kill('SIGKILL');
    await ended;
    expect(refusalOf(pod())).toContain('failed calling webhook "mutate.sealpod.io"');
    const nameless = pod({ runtimeClassName: null }, { namespace: 'sealed' });
    expect(refusalOf(nameless)).toContain('failed calling webhook "runtime-class.sealpod.io"');
    const ordinary = pod({ runtimeClassName: null, hostNetwork: true }, { name: 'ordinary' });
    expect(stored(ordinary)).toMatchObject({ metadata: { name: 'ordinary' } });
    // Without any webhook the policies of the API server itself still hold.
    server.kubectl(['delete', 'mutatingwebhookconfiguration,validatingwebhookconfiguration', 'sealpod']);
    await vi.waitFor(() => expect(refusalOf(nameless)).toContain('runtimeClass: '), { timeout: 60_000 });
    // The API server forgets its webhooks one by one.
    const tagged = container({ image: 'registry.test/app:1' });
    await vi.waitFor(() => expect(refusalOf(tagged)).toContain('imageDigest: '), { timeout: 60_000 });
  });

  it('keeps its own key out of the manifests', () => {
    const text = manifestsOf(['--service', 'sealpod-system/webhook']);
    expect(text).toContain('"namespace": "sealpod-system"');
    expect(text).not.toContain(readFileSync(file('key'), 'utf8').split('\n')[1]);
  });
});
