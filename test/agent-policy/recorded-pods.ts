import { createRegoEngine } from '@sealpod/rego';
import { AgentPolicy } from '../../guest-agent/agent-policy/agent-policy.ts';
import { generatePolicy, type PolicyOptions } from '../../workload/agent-policy/policy.ts';
import type { WorkloadImage } from '../../workload/image/image.ts';
import { readManifests } from '../../workload/kubernetes/manifests.ts';
import { fixture, NodeFiles, type PolicyInput, requestsOf } from './requests.ts';

/** The image of the recorded pods, by the digest that their policies pin. */
export const image: WorkloadImage = {
  reference: `localhost/app@sha256:${'b3'.repeat(32)}`,
  entrypoint: ['/bin/sh', '-c', 'sleep 3600'],
  command: [],
  environment: ['PATH=/bin', 'FROM_IMAGE=yes'],
  workingDirectory: '',
  user: '',
};

/** The recorded pods, their generated policies, and guests that decide by them with the guest's own engine. */
export class RecordedPods {
  readonly engine = createRegoEngine({ workers: 1, timeoutMs: 10_000 });
  readonly node = new NodeFiles({
    conf: { mode: 'fast', 'app.conf': 'a = 1\n' },
    cred: { user: 'alice', token: 't0ken' },
    info: { labels: 'app="web"' },
    all: { mode: 'fast', 'app.conf': 'a = 1\n', user: 'alice', token: 'x' },
  });

  async close(): Promise<void> {
    this.node.remove();
    await this.engine.close();
  }

  async policyOf(pod: string, options: PolicyOptions = {}): Promise<string> {
    const manifests = readManifests(fixture('pods.yaml'));
    const found = manifests.templates.find(({ owner }) => owner.metadata.name === pod);
    if (found === undefined) throw new Error(`no pod ${pod}`);
    const resolve = async () => image;
    return (await generatePolicy(found.owner, found.template, manifests.configuration, resolve, options)).policy;
  }

  /** `allowed`, or what the policy printed. */
  async decide(policy: AgentPolicy, type: string, of: PolicyInput): Promise<string> {
    const { allowed, prints, failure } = await policy.decide(type, of);
    return allowed ? 'allowed' : `${prints.join('\n')}${failure?.message ?? ''}` || 'refused without a word';
  }

  /** A guest whose sandbox is up, as far as its policy knows. */
  async start(pod: string, policy: string): Promise<AgentPolicy> {
    const agent = await AgentPolicy.create({ engine: this.engine, policy });
    const { annotations } = JSON.parse(fixture(`${pod}.sandbox.json`)) as { annotations: Record<string, string> };
    const id = annotations['io.kubernetes.cri.sandbox-id'] ?? '';
    const { create } = await requestsOf(`${pod}.sandbox`, id, image.reference, this.node);
    for (const [type, request] of [
      ['CreateContainerRequest', create],
      ['StartContainerRequest', { container_id: id }],
    ] as const) {
      const answer = await this.decide(agent, type, request);
      if (answer !== 'allowed') throw new Error(`${type} of sandbox ${pod}: ${answer}`);
    }
    return agent;
  }
}
