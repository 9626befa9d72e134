import { createRegoEngine } from '@sealpod/rego';
import { afterAll, describe, expect, it } from 'vitest';
import { askPolicy } from './decide.ts';
import { defaultPolicy, defaultPolicyId } from './default-policy.ts';

const rego = createRegoEngine();
afterAll(() => rego.close());

const submod = (status?: unknown) => ({ 'ear.status': status, 'ear.trustworthiness-vector': { hardware: 2 } });
const data = (plugin = 'resource') => ({ plugin, 'resource-path': ['a', 'b', 'c'], query: {} });
const policy = { id: defaultPolicyId, policy: defaultPolicy, sha256: 'x' };

function ask(input: object, plugin?: string) {
  return askPolicy(rego, defaultPolicyId, policy, { input: JSON.parse(JSON.stringify(input)), data: data(plugin) });
}

describe('the built-in resource policy', () => {
  it('lets in where every submodule is affirming', async () => {
    expect((await ask({ submods: { cpu0: submod('affirming') } })).code).toBe('OK');
    expect((await ask({ submods: { cpu0: submod('affirming'), gpu0: submod('affirming') } })).code).toBe('OK');
  });

  it.each<[string, object]>([
    ['one of two is not', { submods: { cpu0: submod('affirming'), gpu0: submod('warning') } }],
    ['there is none', { submods: {} }],
    ['submods is missing', {}],
    ['submods is a list', { submods: [] }],
    ['submods is a text', { submods: 'affirming' }],
    ['a status is missing', { submods: { cpu0: submod() } }],
    ['a status has another case', { submods: { cpu0: submod('Affirming') } }],
    ['a status is true', { submods: { cpu0: submod(true) } }],
    ['a status is a list', { submods: { cpu0: submod(['affirming']) } }],
    ['a submodule is a text', { submods: { cpu0: 'affirming' } }],
    ['a submodule is null', { submods: { cpu0: submod('affirming'), gpu0: null } }],
  ])('G-02: refuses where %s', async (_name, input) => {
    expect((await ask(input)).code).toBe('POLICY_DENY');
  });

  it('refuses every other plugin', async () => {
    expect((await ask({ submods: { cpu0: submod('affirming') } }, 'other')).code).toBe('POLICY_DENY');
  });

  it('an unset policy refuses', async () => {
    const question = { input: { submods: { cpu0: submod('affirming') } } as never, data: data() };
    expect((await askPolicy(rego, 'gone', undefined, question)).code).toBe('POLICY_UNSET');
  });

  it('G-26: a policy that runs on is stopped, and refuses', async () => {
    const slow = createRegoEngine({ timeoutMs: 300 });
    const text =
      'package policy\nimport rego.v1\nallow if { some a in numbers.range(1, 3000); some b in numbers.range(1, 3000); a * b == -1 }';
    const question = { input: {}, data: data() };
    const verdict = await askPolicy(slow, 'x', { id: 'x', policy: text, sha256: 'x' }, question);
    await slow.close();
    expect(verdict.code).toBe('POLICY_TIMEOUT');
  });

  it('G-26: a policy cannot reach the network or the process', async () => {
    for (const call of [
      'http.send({"method": "get", "url": "http://127.0.0.1:1"})',
      'opa.runtime()',
      'net.lookup_ip_addr("localhost")',
    ]) {
      const text = `package policy\nimport rego.v1\nallow if { x := ${call}; x }\nallow if true`;
      const verdict = await askPolicy(rego, 'x', { id: 'x', policy: text, sha256: 'x' }, { input: {}, data: data() });
      expect(verdict.code, call).toBe('POLICY_INVALID');
    }
  });
});
