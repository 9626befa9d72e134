import { type AgentPolicyInput, agentPolicy } from '@sealpod/cli/pod';
import { createRegoEngine } from '@sealpod/rego';
import { afterAll, describe, expect, it } from 'vitest';

const engine = createRegoEngine({ workers: 1, timeoutMs: 10_000 });
afterAll(() => engine.close());

/** Whether the guest would serve a request under the policy for `pod`. */
async function allows(pod: AgentPolicyInput, request: string, input: unknown): Promise<boolean> {
  const rule = `data.agent_policy.${request}`;
  const { values } = await engine.evaluate({
    policy: agentPolicy(pod),
    rules: [rule],
    input,
    data: { pstate: {} },
    strictBuiltinErrors: false,
  });
  return values[rule] === true;
}

const pod: AgentPolicyInput = {
  containers: [
    { image: 'r/a@sha256:1', args: ['/a'] },
    { image: 'r/b@sha256:2', args: ['/b', 'x'], environment: ['PATH=/bin', 'MODE=safe'] },
  ],
  commands: [['cat', '/tmp/healthy']],
  allowExec: false,
};
const create = (image: string, args: readonly string[], environment: readonly string[] = []) => ({
  OCI: {
    Annotations: { 'io.kubernetes.cri.container-type': 'container' },
    Process: { Args: args, Env: environment },
  },
  storages: [{ driver: 'image_guest_pull', source: image }],
  devices: [],
});
const exec = (...args: readonly string[]) => ({ process: { Args: args } });

describe('agent policy of a pod of several containers', () => {
  it.each([
    ['the first container', true, create('r/a@sha256:1', ['/a'], ['ANY=thing'])],
    ['the second', true, create('r/b@sha256:2', ['/b', 'x'], ['PATH=/bin', 'MODE=safe'])],
    ['the command of one with the image of another', false, create('r/a@sha256:1', ['/b', 'x'])],
    ['another image', false, create('r/c@sha256:3', ['/a'])],
    ['another argument', false, create('r/b@sha256:2', ['/b', 'y'], ['PATH=/bin'])],
    ['another value of a variable', false, create('r/b@sha256:2', ['/b', 'x'], ['PATH=/bin', 'MODE=debug'])],
    ['a variable too many', false, create('r/b@sha256:2', ['/b', 'x'], ['LD_PRELOAD=/x.so'])],
    ['a variable that only begins like one of a Service', false, create('r/b@sha256:2', ['/b', 'x'], ['X_PORT=$(id)'])],
    [
      'what Kubernetes adds',
      true,
      create(
        'r/b@sha256:2',
        ['/b', 'x'],
        [
          'HOSTNAME=h',
          'KUBERNETES_SERVICE_HOST=10.0.0.1',
          'KUBERNETES_SERVICE_PORT_HTTPS=443',
          'KUBERNETES_PORT=tcp://10.0.0.1:443',
          'KUBERNETES_PORT_443_TCP_ADDR=10.0.0.1',
        ],
      ),
    ],
  ])('%s: %s', async (_name, expected, input) => {
    expect(await allows(pod, 'CreateContainerRequest', input)).toBe(expected);
  });

  it('takes no disk of the host', async () => {
    const input = create('r/a@sha256:1', ['/a']);
    const disk = { driver: 'scsi', source: '0:0' };
    const withDisk = { ...input, storages: [...input.storages, disk] };
    expect(await allows(pod, 'CreateContainerRequest', withDisk)).toBe(false);
    expect(await allows(pod, 'CreateContainerRequest', { ...input, devices: [{ type_: 'scsi' }] })).toBe(false);
  });

  it('runs the commands of probes and no other, nor input', async () => {
    expect(await allows(pod, 'ExecProcessRequest', exec('cat', '/tmp/healthy'))).toBe(true);
    expect(await allows(pod, 'ExecProcessRequest', exec('cat', '/etc/shadow'))).toBe(false);
    expect(await allows(pod, 'WriteStreamRequest', {})).toBe(false);
    const closed = { ...pod, commands: [] };
    expect(await allows(closed, 'ExecProcessRequest', exec('cat', '/tmp/healthy'))).toBe(false);
    expect(await allows({ ...pod, allowExec: true }, 'ExecProcessRequest', exec('sh'))).toBe(true);
  });

  it('gives termination messages away, and no other diagnostics', async () => {
    expect(await allows(pod, 'GetDiagnosticDataRequest', { log_type: 'termination_log' })).toBe(true);
    expect(await allows(pod, 'GetDiagnosticDataRequest', { log_type: 'memory' })).toBe(false);
  });

  it('puts copied files into the folder of volumes alone', async () => {
    const folder = '/run/kata-containers/shared/containers/';
    expect(await allows(pod, 'CopyFileRequest', { path: `${folder}c-1-settings` })).toBe(true);
    expect(await allows(pod, 'CopyFileRequest', { path: '/etc/passwd' })).toBe(false);
  });
});
