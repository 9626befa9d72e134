import { createRegoEngine } from '@sealpod/rego';
import { afterAll, describe, expect, it } from 'vitest';
import { AgentPolicy } from './agent-policy.ts';

const engine = createRegoEngine({ workers: 1, timeoutMs: 5000 });
afterAll(() => engine.close());

/** The idioms of generated policies: state, first match, regular expressions, prints. */
const generated = `package agent_policy

import future.keywords.in

default CreateContainerRequest := {"ops": [], "allowed": false}
default ExecProcessRequest := false

CreateContainerRequest := {"ops": ops, "allowed": true} if {
  some index, container in policy_data.containers
  print("try", index)
  container.args == input.OCI.Process.Args
  every pattern in container.env { regex.match(pattern, concat("|", input.OCI.Process.Env)) }
  not data.pstate[input.container_id]
  ops := array.concat(name_ops, [{"op": "add", "path": concat("/", ["/pstate", input.container_id]), "value": index}])
}

name_ops := [] if data.pstate.sandbox_name == input.OCI.Annotations.name
name_ops := [{"op": "add", "path": "/pstate/sandbox_name", "value": input.OCI.Annotations.name}] if not data.pstate.sandbox_name

ExecProcessRequest if input.process.Args in policy_data.containers[data.pstate[input.container_id]].exec

RemoveContainerRequest := {"ops": [{"op": "remove", "path": concat("/", ["/pstate", input.container_id])}], "allowed": true}

policy_data := {"containers": [
  {"args": ["/one"], "env": ["A=[0-9]+"], "exec": [["probe"]]},
  {"args": ["/two"], "env": [], "exec": []},
]}
`;

const container = (container_id: string, args: string[], name = 'pod') => ({
  container_id,
  OCI: { Process: { Args: args, Env: ['A=1', 'B=2'] }, Annotations: { name } },
});

describe('agent policy', () => {
  it('keeps state between requests: names agree, ids are once, execs belong to their container', async () => {
    const policy = await AgentPolicy.create({ engine, policy: generated });
    const allowed = async (type: string, input: unknown) => (await policy.decide(type, input)).allowed;
    expect(await allowed('ExecProcessRequest', { container_id: 'c1', process: { Args: ['probe'] } })).toBe(false);
    expect(await allowed('CreateContainerRequest', container('c1', ['/one']))).toBe(true);
    expect(await allowed('CreateContainerRequest', container('c1', ['/one']))).toBe(false);
    expect(await allowed('CreateContainerRequest', container('c2', ['/two'], 'other'))).toBe(false);
    expect(await allowed('CreateContainerRequest', container('c2', ['/two']))).toBe(true);
    expect(await allowed('CreateContainerRequest', container('c3', ['/three']))).toBe(false);
    expect(await allowed('ExecProcessRequest', { container_id: 'c1', process: { Args: ['probe'] } })).toBe(true);
    expect(await allowed('ExecProcessRequest', { container_id: 'c2', process: { Args: ['probe'] } })).toBe(false);
    expect(await allowed('RemoveContainerRequest', { container_id: 'c1' })).toBe(true);
    expect(await allowed('RemoveContainerRequest', { container_id: 'c1' })).toBe(false);
    expect(await allowed('ExecProcessRequest', { container_id: 'c1', process: { Args: ['probe'] } })).toBe(false);
  });

  it('decides one after the other on the state of the one before', async () => {
    const policy = await AgentPolicy.create({ engine, policy: generated });
    const requests = Array.from({ length: 8 }, () =>
      policy.decide('CreateContainerRequest', container('same', ['/one'])),
    );
    expect((await Promise.all(requests)).filter((decision) => decision.allowed)).toHaveLength(1);
  });

  it('says what the policy printed', async () => {
    const policy = await AgentPolicy.create({ engine, policy: generated });
    const { prints } = await policy.decide('CreateContainerRequest', container('c', ['/three']));
    expect(prints.map((line) => line.replace(/^.*: /, ''))).toEqual(['try 0', 'try 1']);
  });

  it.each([
    ['no rule', 'package agent_policy\n'],
    ['another package', 'package other\nX := true\n'],
    ['text', 'package agent_policy\nX := "true"\n'],
    ['a number', 'package agent_policy\nX := 1\n'],
    ['an object without allowed', 'package agent_policy\nX := {"ops": []}\n'],
    ['allowed as text', 'package agent_policy\nX := {"allowed": "true", "ops": []}\n'],
    [
      'operations outside of the state',
      'package agent_policy\nX := {"allowed": true, "ops": [{"op": "add", "path": "/other", "value": 1}]}\n',
    ],
    [
      'operations that take from outside',
      'package agent_policy\nX := {"allowed": true, "ops": [{"op": "copy", "from": "", "path": "/pstate/a"}]}\n',
    ],
    [
      'operations that do not apply',
      'package agent_policy\nX := {"allowed": true, "ops": [{"op": "remove", "path": "/pstate/a"}]}\n',
    ],
    ['operations that are no list', 'package agent_policy\nX := {"allowed": true, "ops": 1}\n'],
    ['endless recursion', 'package agent_policy\nf(n) := f(n + 1)\nX if f(1)\n'],
    ['two values', 'package agent_policy\nX := true\nX := false\n'],
  ])('refuses where the rule gives %s', async (_what, text) => {
    const policy = await AgentPolicy.create({ engine, policy: text });
    expect((await policy.decide('X', {})).allowed).toBe(false);
  });

  it('G-03: refuses everything without a policy', async () => {
    const policy = await AgentPolicy.create({ engine });
    for (const type of ['CreateContainerRequest', 'SetPolicyRequest', 'GuestDetailsRequest']) {
      expect(await policy.decide(type, {})).toEqual({ allowed: false, prints: [] });
    }
  });

  it('G-17: honours AllowRequestsFailingPolicy in a debug image only', async () => {
    const text = 'package agent_policy\ndefault AllowRequestsFailingPolicy := true\nX := false\n';
    await expect(AgentPolicy.create({ engine, policy: text })).rejects.toMatchObject({ code: 'POLICY_INVALID' });
    const debug = await AgentPolicy.create({ engine, policy: text, debug: true });
    expect((await debug.decide('X', {})).allowed).toBe(true);
  });
});
