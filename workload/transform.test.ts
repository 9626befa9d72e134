import { decodeInitdataAnnotation, encodeInitdataAnnotation, parseInitdata } from '@sealpod/protocol/initdata';
import { unsupportedFeatures } from '@sealpod/protocol/unsupported';
import { describe, expect, it } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import type { ImageResolver } from './image/image.ts';
import { initdataAnnotation } from './initdata.ts';
import { restrictedViolations } from './pod-security.ts';
import { restoreManifests, transformManifests } from './transform.ts';

const digest = `sha256:${'a'.repeat(64)}`;
const images: ImageResolver = async (text) => {
  const [name = ''] = text.split(/[:@]/);
  return {
    reference: `registry.test/${name.replace('registry.test/', '')}@${digest}`,
    entrypoint: ['/app'],
    command: [],
    environment: [],
    workingDirectory: '',
    user: name === 'named' ? 'www-data' : '1000:1000',
  };
};
const transform = (text: string, more: Partial<Parameters<typeof transformManifests>[1]> = {}) =>
  transformManifests(text, { runtimeClasses: ['sealpod'], images, namespace: 'default', ...more });

const spec = '{ runtimeClassName: sealpod, containers: [{ name: web, image: "app:1" }] }';
const kinds = {
  Pod: `apiVersion: v1\nkind: Pod\nmetadata: { name: web }\nspec: ${spec}\n`,
  Deployment: `apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: web }\nspec: { template: { spec: ${spec} } }\n`,
  ReplicaSet: `apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: { name: web }\nspec: { template: { spec: ${spec} } }\n`,
  StatefulSet: `apiVersion: apps/v1\nkind: StatefulSet\nmetadata: { name: web }\nspec: { template: { spec: ${spec} } }\n`,
  DaemonSet: `apiVersion: apps/v1\nkind: DaemonSet\nmetadata: { name: web }\nspec: { template: { spec: ${spec} } }\n`,
  Job: `apiVersion: batch/v1\nkind: Job\nmetadata: { name: web }\nspec: { template: { spec: ${spec} } }\n`,
  CronJob: `apiVersion: batch/v1\nkind: CronJob\nmetadata: { name: web }\nspec: { jobTemplate: { spec: { template: { spec: ${spec} } } } }\n`,
};

interface Template {
  readonly metadata: { readonly annotations: Record<string, string> };
  readonly spec: { readonly containers: readonly { readonly image: string }[] };
}

function templateIn(object: unknown): Template {
  const { kind, spec: of } = object as {
    kind: string;
    spec: { template?: Template; jobTemplate?: { spec: { template: Template } } };
  };
  return kind === 'Pod' ? (object as Template) : (of.template ?? of.jobTemplate?.spec.template ?? (object as Template));
}

const initdataOf = (template: Template) =>
  parseInitdata(decodeInitdataAnnotation(template.metadata.annotations[initdataAnnotation] ?? ''));

/** A name as Kubernetes would make it, and one that it would not. */
const names: Record<keyof typeof kinds, readonly [string, string]> = {
  Pod: ['web', 'web-1'],
  Deployment: ['web-5d4f8c7b9-x2x4z', 'web-x2x4z'],
  ReplicaSet: ['web-x2x4z', 'web'],
  StatefulSet: ['web-0', 'web-x2x4z'],
  DaemonSet: ['web-x2x4z', 'other-x2x4z'],
  Job: ['web-x2x4z', 'web'],
  CronJob: ['web-29384756-x2x4z', 'web-x2x4z'],
};

describe('transform', () => {
  it.each(Object.entries(kinds))('%s: image by digest and initdata in the pod template', async (kind, text) => {
    const { text: result, workloads } = await transform(text);
    const template = templateIn(parse(result));
    expect(template.spec.containers[0]?.image).toBe(`registry.test/app@${digest}`);
    const { data } = initdataOf(template);
    expect(data['cdh.toml']).toContain(digest);
    expect(data['policy.rego']).toBe(workloads[0]?.policy);
    const name = /"name": ("\^.*\$")/.exec(data['policy.rego'] ?? '')?.[1] ?? '""';
    const pattern = new RegExp(JSON.parse(name) as string);
    const [good, bad] = names[kind as keyof typeof kinds];
    expect([pattern.test(good), pattern.test(bad)]).toEqual([true, false]);
    // Twice is once, and undone it is as before.
    expect((await transform(result)).text).toBe(result);
    expect(parse(restoreManifests(result))).toEqual(parse(text));
    expect(restoreManifests(restoreManifests(result))).toBe(restoreManifests(result));
  });

  it('keeps comments, other objects and other pods, in lists and several documents', async () => {
    const list = { apiVersion: 'v1', kind: 'List', items: [parse(kinds.Deployment), parse(kinds.Pod)] };
    const plain = kinds.Pod.replace('runtimeClassName: sealpod, ', '');
    const text = `# mine\n${kinds.Deployment}---\n${plain}---\n${JSON.stringify(list)}\n---\nkind: Service\nmetadata: { name: s } # kept\n`;
    const { text: result, workloads } = await transform(text);
    expect(workloads.map(({ workload }) => workload)).toEqual(['Deployment web', 'Deployment web', 'Pod web']);
    expect(result).toContain('# mine');
    expect(result).toContain('# kept');
    const documents = parseAllDocuments(result).map((document) => document.toJS() as { items?: unknown[] });
    expect(documents).toHaveLength(4);
    expect(documents[1]).toEqual(parse(plain));
    for (const item of documents[2]?.items ?? [])
      expect(initdataOf(templateIn(item)).data['policy.rego']).toBeDefined();
  });

  it('begins with the initdata that is there, and replaces policy and image policy only', async () => {
    const toml = `algorithm = "sha256"\nversion = "0.1.0"\n[data]\n"aa.toml" = '''\n[token_configs.kbs]\nurl = "https://kbs.test"\n'''\n"policy.rego" = "package old"\n"own" = "kept"\n`;
    const pod = parse(kinds.Pod) as Record<string, unknown>;
    const annotated = {
      ...pod,
      metadata: { name: 'web', annotations: { [initdataAnnotation]: encodeInitdataAnnotation(toml) } },
    };
    const { data } = initdataOf(templateIn(parse((await transform(JSON.stringify(annotated))).text)));
    expect(data['aa.toml']).toContain('https://kbs.test');
    expect(data['own']).toBe('kept');
    expect(data['policy.rego']).toContain('policy_data');
    const kbs = { url: 'https://other.test', certificatePem: 'PEM' };
    const other = initdataOf(templateIn(parse((await transform(JSON.stringify(annotated), { kbs })).text)));
    expect(other.data['aa.toml']).toContain('https://other.test');
    expect(other.data['cdh.toml']).toContain('kbs_cert = "PEM"');
  });

  it('undoes: images as they were named, the annotation that was there, and nothing else', async () => {
    const toml = 'algorithm = "sha256"\nversion = "0.1.0"\n[data]\n"own" = "kept"\n';
    const text = `# mine
kind: Deployment
metadata:
  name: web # the web
spec:
  template:
    metadata:
      labels:
        app: web
      annotations:
        note: 'quoted'
        ${initdataAnnotation}: ${encodeInitdataAnnotation(toml)}
    spec:
      runtimeClassName: sealpod
      initContainers:
        - name: prepare
          image: other:2
      containers:
        - name: web
          image: app:1 # one
        - name: pinned
          image: registry.test/app@${digest}
---
kind: Service
metadata:
  name: web
`;
    const { text: once } = await transform(text);
    const { text: twice } = await transform(once, { allowExec: true });
    expect(twice).not.toBe(once);
    expect(restoreManifests(once)).toBe(text);
    expect(restoreManifests(twice)).toBe(text);
    expect(restoreManifests(text)).toBe(text);
    // An image that was changed since is what it is now.
    const changed = twice.replace(/image: \S+ # one/, 'image: app:3 # one');
    expect(restoreManifests((await transform(changed)).text)).toContain('image: app:3 # one');
  });

  it('refuses to undo by a record that is none', async () => {
    const { text } = await transform(kinds.Pod);
    expect(() =>
      restoreManifests(text.replace(/sealpod\.io\/transformed-from: .*/, 'sealpod.io/transformed-from: "1"')),
    ).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });

  it('K-01: containers that may be added to a running pod are part of policy and image policy, once declared', async () => {
    const { workloads } = await transform(kinds.Pod, { ephemeralContainers: [{ name: 'debugger', image: 'debug:1' }] });
    expect(workloads[0]?.images).toEqual([`registry.test/app@${digest}`, `registry.test/debug@${digest}`]);
    expect(workloads[0]?.policy).toContain('"debugger": {');
    expect((await transform(kinds.Pod)).workloads[0]?.policy).not.toContain('"debugger"');
  });

  it('G-14: refuses initdata that holds a private key', async () => {
    const base = `algorithm = "sha256"\nversion = "0.1.0"\n[data]\n"key" = "-----BEGIN PRIVATE KEY-----"\n`;
    await expect(transform(kinds.Pod, { base })).rejects.toMatchObject({ code: 'INITDATA_SCHEMA' });
  });

  const pod = (more: string, container = '') =>
    `kind: Pod\nmetadata: { name: web }\nspec: { runtimeClassName: sealpod, containers: [{ name: web, image: "app:1"${container} }]${more} }\n`;
  it.each([
    ['a hostPath', pod(', volumes: [{ name: v, hostPath: { path: / } }]'), 'UNSUPPORTED', unsupportedFeatures.hostPath],
    ['hostNetwork', pod(', hostNetwork: true'), 'UNSUPPORTED', unsupportedFeatures.hostNetwork],
    [
      'a claim of which nothing says how it is encrypted',
      pod(
        ', volumes: [{ name: v, persistentVolumeClaim: { claimName: c } }]',
        ', volumeMounts: [{ name: v, mountPath: /v }]',
      ),
      'USAGE',
      'nothing says how it is encrypted',
    ],
    [
      'a mount of no volume',
      pod('', ', volumeMounts: [{ name: v, mountPath: /v }]'),
      'USAGE',
      'volume v does not exist',
    ],
    [
      'a ConfigMap that was not given',
      pod('', ', env: [{ name: A, valueFrom: { configMapKeyRef: { name: c, key: k } } }]'),
      'USAGE',
      'ConfigMap c with key k is not known',
    ],
    [
      'all variables of an unknown Secret',
      pod('', ', envFrom: [{ secretRef: { name: s } }]'),
      'USAGE',
      'Secret s is not known',
    ],
    ['an image with a user by name', pod('').replace('app:1', 'named:1'), 'USAGE', 'the image names a user'],
    ['no containers', 'kind: Pod\nmetadata: { name: web }\nspec: { containers: [] }\n', 'USAGE', 'has no containers'],
    ['a command that is no list', pod('', ', command: run'), 'USAGE', 'command is not a list of strings'],
    ['a variable that is a number', pod('', ', env: [{ name: A, value: 1 }]'), 'USAGE', 'variable A is not a string'],
    ['no YAML', 'a: [', 'USAGE', 'not YAML'],
  ])('refuses %s', async (_what, text, code, message) => {
    await expect(transform(text)).rejects.toMatchObject({ code, message: expect.stringContaining(message) as string });
  });

  it('Pod Security restricted: names every field that is missing, and refuses for the first', async () => {
    const fields = restrictedViolations({ containers: [{ name: 'web' }] }).map(({ field }) => field);
    expect(fields.map((field) => field.replace('spec.containers[web].securityContext.', ''))).toEqual([
      'allowPrivilegeEscalation',
      'runAsNonRoot',
      'capabilities.drop',
      'seccompProfile.type',
    ]);
    await expect(transform(pod(''), { podSecurity: 'restricted' })).rejects.toMatchObject({
      code: 'POLICY_DENY',
      message: expect.stringContaining('allowPrivilegeEscalation') as string,
    });
  });

  it('Pod Security restricted: takes what Kubernetes takes', async () => {
    const context =
      ', securityContext: { runAsNonRoot: true, allowPrivilegeEscalation: false, capabilities: { drop: [ALL] }, seccompProfile: { type: RuntimeDefault } }';
    const { workloads } = await transform(pod('', context), { podSecurity: 'restricted' });
    expect(workloads[0]?.policy).toContain('"security": "restricted"');
  });
});
