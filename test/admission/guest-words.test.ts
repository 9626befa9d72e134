import { afterAll, describe, expect, it } from 'vitest';
import { readManifests } from '../../workload/kubernetes/manifests.ts';
import type { Container, PodSpec } from '../../workload/kubernetes/types.ts';
import { policyRefusals } from '../../workload/policy-refusals.ts';
import { image, RecordedPods } from '../agent-policy/recorded-pods.ts';
import { fixture, type PolicyInput, requestsOf } from '../agent-policy/requests.ts';

/*
 * A pod that was changed after its policy was made: the words of the webhook are those of the guest, which is asked for the
 * same change.
 */

interface Create {
  OCI: {
    Process: { Args: string[]; Env: string[] };
    Mounts: { destination: string; source: string; type_: string; options: string[] }[];
    Annotations: Record<string, string>;
  };
}

const pods = new RecordedPods();
afterAll(() => pods.close());

const written = readManifests(fixture('pods.yaml')).templates.find(({ owner }) => owner.metadata.name === 'full');
const spec = written?.template.spec ?? {};
const other = `localhost/other@sha256:${'d4'.repeat(32)}`;

/** The pod with its images by digest, as `sealpod transform` leaves it, and its container `main` changed. */
function changed(main: Partial<Container>): PodSpec {
  const pin = (container: Container): Container => ({ ...container, image: image.reference });
  return {
    ...spec,
    initContainers: (spec.initContainers ?? []).map(pin),
    containers: (spec.containers ?? []).map((item) => ({ ...pin(item), ...(item.name === 'main' ? main : {}) })),
  };
}

describe('the webhook and the guest refuse in the same words', () => {
  it('neither refuses the pod as its owner wrote it, nor with what the API server adds', async () => {
    const policy = await pods.policyOf('full', { namespace: 'default' });
    expect(policyRefusals(changed({}), policy)).toEqual([]);
    const token = { name: 'kube-api-access-x2x4z', mountPath: '/var/run/secrets/kubernetes.io/serviceaccount' };
    const stored = changed({ volumeMounts: [...(spec.containers?.[0]?.volumeMounts ?? []), token] });
    const volumes = [...(spec.volumes ?? []), { name: token.name, projected: { sources: [] } }];
    expect(policyRefusals({ ...stored, volumes }, policy)).toEqual([]);
    for (const foreign of ['package agent_policy', 'x\npolicy_data := {"containers":[]}', 'x\npolicy_data := {'])
      expect(policyRefusals(changed({}), foreign)).toEqual([]);
  });

  it.each<[string, string, Partial<Container>, (create: Create) => void]>([
    [
      'another image',
      'spec.containers[main].image',
      { image: other },
      ({ OCI }) => {
        OCI.Annotations['io.kubernetes.cri.image-name'] = other;
      },
    ],
    [
      'another command',
      'spec.containers[main].command',
      { command: ['/bin/evil', '--now'], args: [] },
      ({ OCI }) => {
        OCI.Process.Args = ['/bin/evil', '--now'];
      },
    ],
    [
      'a variable more',
      'spec.containers[main].env[LD_PRELOAD]',
      { env: [...(spec.containers?.[0]?.env ?? []), { name: 'LD_PRELOAD', value: '/evil.so' }] },
      ({ OCI }) => void OCI.Process.Env.push('LD_PRELOAD=/evil.so'),
    ],
    [
      'another value',
      'spec.containers[main].env[LATER]',
      {
        env: (spec.containers?.[0]?.env ?? []).map((item) => (item.name === 'LATER' ? { ...item, value: 'm' } : item)),
      },
      ({ OCI }) => {
        OCI.Process.Env = OCI.Process.Env.map((item) => (item === 'LATER=l' ? 'LATER=m' : item));
      },
    ],
    [
      'a mount more',
      'spec.containers[main].volumeMounts[/usr/lib]',
      { volumeMounts: [...(spec.containers?.[0]?.volumeMounts ?? []), { name: 'scratch', mountPath: '/usr/lib' }] },
      ({ OCI }) => {
        const source = '/run/kata-containers/sandbox/storage/scratch';
        OCI.Mounts.push({ destination: '/usr/lib', source, type_: 'bind', options: ['rbind'] });
      },
    ],
  ])('%s', async (_what, field, main, ask) => {
    const policy = await pods.policyOf('full', { namespace: 'default' });
    const refusals = policyRefusals(changed(main), policy);
    expect(refusals.map((refusal) => refusal.field)).toEqual([field]);
    const agent = await pods.start('full', policy);
    const { create } = await requestsOf('full.main', 'id1', image.reference, pods.node);
    const request = structuredClone(create) as PolicyInput & Create;
    ask(request);
    const words = await pods.decide(agent, 'CreateContainerRequest', request);
    expect(words).toContain(refusals[0]?.message);
  });

  it('a container that was added, while the pod runs or before', async () => {
    const policy = await pods.policyOf('full', { namespace: 'default' });
    const debug = { name: 'debugger', image: image.reference };
    const agent = await pods.start('full', policy);
    const { create } = await requestsOf('full.plain', 'id1', image.reference, pods.node);
    const request = structuredClone(create) as PolicyInput & Create;
    request.OCI.Annotations['io.kubernetes.cri.container-name'] = 'debugger';
    const words = await pods.decide(agent, 'CreateContainerRequest', request);
    for (const list of ['ephemeralContainers', 'containers'] as const) {
      const pod = { ...changed({}), [list]: [...(list === 'containers' ? (changed({}).containers ?? []) : []), debug] };
      const refusals = policyRefusals(pod, policy);
      expect(refusals).toHaveLength(1);
      expect(words).toContain(refusals[0]?.message);
    }
  });
});
