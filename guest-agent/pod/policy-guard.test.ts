import { create } from '@bufbuild/protobuf';
import { AgentService, CopyFileRequestSchema } from '@sealpod/protocol/gen/kata/agent_pb';
import { HealthCheckResponse_ServingStatus } from '@sealpod/protocol/gen/kata/health_pb';
import { Status, type TtrpcError } from '@sealpod/protocol/ttrpc';
import { afterEach, describe, expect, it } from 'vitest';
import { allowAll, cannotRunContainers, containerRequest, type PodFixture, startPod } from './testing/pod-fixture.ts';

const reason = cannotRunContainers();
let pod: PodFixture | undefined;

afterEach(async () => {
  await pod?.close();
  pod = undefined;
});

const reads = new Set(['readStdout', 'readStderr']);

async function outcome(agent: PodFixture['agent'], method: string): Promise<TtrpcError> {
  const call = agent[method as keyof typeof agent] as (request: object) => Promise<unknown>;
  const answer = await call({}).catch((error: unknown) => error);
  return answer as TtrpcError;
}

describe('agent policy in front of the pod service', () => {
  it('G-03/G-07: without a policy everything but Health is refused', async () => {
    pod = await startPod(undefined);
    for (const method of AgentService.methods) {
      if (reads.has(method.localName)) continue;
      const error = await outcome(pod.agent, method.localName);
      expect(error.status, method.name).toBe(Status.permissionDenied);
      expect(error.message).toContain(`${method.input.name} is blocked by policy`);
      expect(error.message).toMatch(/^AGENT_POLICY_DENY: /);
    }
    expect(await pod.health.check({})).toMatchObject({ status: HealthCheckResponse_ServingStatus.SERVING });
    expect(await pod.health.version({})).toMatchObject({ agentVersion: '0.1.0-test' });
  });

  it('allows what a rule names and nothing else, and hands on what the policy printed', async () => {
    pod = await startPod(`package agent_policy
GuestDetailsRequest if input.mem_block_size == false
CopyFileRequest if {
  print("path is", input.path)
  startswith(input.path, "/somewhere")
}
`);
    expect(await pod.agent.getGuestDetails({})).toMatchObject({ agentDetails: { version: '0.1.0-test' } });
    await expect(pod.agent.getGuestDetails({ memBlockSize: true })).rejects.toMatchObject({
      status: Status.permissionDenied,
    });
    await expect(pod.agent.copyFile(create(CopyFileRequestSchema, { path: '/elsewhere' }))).rejects.toMatchObject({
      status: Status.permissionDenied,
      message: expect.stringContaining('CopyFileRequest is blocked by policy: policy.rego:4: path is /elsewhere'),
    });
    expect(pod.denied.map(({ request }) => request)).toEqual(['GuestDetailsRequest', 'CopyFileRequest']);
  });

  it('answers UNIMPLEMENTED for what it does not serve, once the policy allows it', async () => {
    pod = await startPod(allowAll);
    for (const method of ['setGuestDateTime', 'addSwap', 'memHotplugByProbe', 'resizeVolume', 'getIPTables']) {
      expect((await outcome(pod.agent, method)).status, method).toBe(Status.unimplemented);
    }
  });

  it('G-17: a policy that sets AllowRequestsFailingPolicy is refused as a whole', async () => {
    await expect(startPod('package agent_policy\nAllowRequestsFailingPolicy := true\n')).rejects.toMatchObject({
      code: 'POLICY_INVALID',
    });
  });

  it('gates SetPolicy by the policy in force, and keeps it where the new one is refused', async () => {
    pod = await startPod('package agent_policy\nSetPolicyRequest := true\nListRoutesRequest := true\n');
    for (const policy of [
      'package agent_policy\nx := {',
      'package agent_policy\nAllowRequestsFailingPolicy := true\n',
    ]) {
      await expect(pod.agent.setPolicy({ policy })).rejects.toThrow(/POLICY_INVALID/);
    }
    expect(await pod.agent.listRoutes({})).toHaveProperty('Routes');
    await pod.agent.setPolicy({ policy: 'package agent_policy\nGuestDetailsRequest := true\n' });
    await expect(pod.agent.setPolicy({ policy: allowAll })).rejects.toMatchObject({ status: Status.permissionDenied });
    await expect(pod.agent.listRoutes({})).rejects.toMatchObject({ status: Status.permissionDenied });
  });

  it.skipIf(reason !== undefined)('answers a refused read empty, and lets the container write on', async () => {
    pod = await startPod(allowAll.replace('ReadStreamRequest := true', 'ReadStreamRequest := false'));
    const args = ['sh', '-c', 'dd if=/dev/zero bs=1024 count=2048 2>/dev/null; exit 6'];
    await pod.agent.createSandbox({});
    await pod.agent.createContainer(containerRequest(pod.root, { id: 'loud', args }));
    await pod.agent.startContainer({ containerId: 'loud' });
    expect((await pod.agent.readStdout({ containerId: 'loud', len: 100 })).data).toHaveLength(0);
    expect(await pod.agent.waitProcess({ containerId: 'loud' })).toMatchObject({ status: 6 });
  });

  it.skipIf(reason !== undefined)(
    'refuses a sealed secret that nobody can open, and opens it with a data hub',
    async () => {
      pod = await startPod(allowAll);
      const wish = (id: string) =>
        containerRequest(pod?.root ?? '', { id, args: ['env'], env: ['KEY=sealed.abc', 'PLAIN=1'] });
      await expect(pod.agent.createContainer(wish('sealed'))).rejects.toMatchObject({ status: Status.unimplemented });
      await pod.close();
      pod = await startPod(allowAll, { dataHub: { unseal: async (secret) => Buffer.from(`opened ${secret}`) } });
      await pod.agent.createContainer(wish('open'));
      await pod.agent.startContainer({ containerId: 'open' });
      await pod.agent.waitProcess({ containerId: 'open' });
      const { data } = await pod.agent.readStdout({ containerId: 'open', len: 4096 });
      expect(Buffer.from(data).toString().split('\n')).toEqual(
        expect.arrayContaining(['KEY=opened sealed.abc', 'PLAIN=1']),
      );
    },
  );
});
