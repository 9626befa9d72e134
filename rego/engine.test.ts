import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { afterAll, describe, expect, it } from 'vitest';
import { createRegoEngine } from './engine.ts';

const engine = createRegoEngine({ timeoutMs: 3000 });
afterAll(() => engine.close());

const evaluate = async (policy: string, rule: string, input: unknown = {}, more: object = {}) =>
  (await engine.evaluate({ policy, rules: [rule], input, ...more })).values[rule];

describe('Rego engine', () => {
  it('evaluates rules on input and data', async () => {
    const policy = `package policy
import rego.v1
default allow := false
allow if input.user in data.users
names contains upper(name) if some name in data.users
undefined_rule := input.missing
`;
    const rules = [
      'data.policy.allow',
      'data.policy.names',
      'data.policy.undefined_rule',
      'data.policy.no_such_rule',
      'data.other.x',
    ];
    const { values, prints } = await engine.evaluate({
      policy,
      rules,
      input: { user: 'b' },
      data: { users: ['b', 'a'] },
    });
    expect(values).toEqual({
      'data.policy.allow': true,
      'data.policy.names': ['A', 'B'],
      'data.policy.undefined_rule': undefined,
      'data.policy.no_such_rule': undefined,
      'data.other.x': undefined,
    });
    expect(prints).toEqual([]);
    expect(await evaluate(policy, 'data.policy.allow', { user: 'c' }, { data: { users: ['b'] } })).toBe(false);
  });

  it('keeps nothing of one evaluation for the next', async () => {
    const policy = 'package p\nx := data.secret\ny := input.z';
    expect(await evaluate(policy, 'data.p.x', {}, { data: { secret: 1 } })).toBe(1);
    expect(await evaluate(policy, 'data.p.x', {})).toBeUndefined();
    expect(await evaluate(policy, 'data.p.y', { z: 1 })).toBe(1);
    expect(await evaluate(policy, 'data.p.y', {})).toBeUndefined();
  });

  it('answers reference values, null for a missing one, and says which were asked for', async () => {
    const policy = `package policy
trust_claims := {"executables": executables, "hardware": hardware}
default executables := 33
executables := 3 if input.tpm.pcr11 in query_reference_value("tpm_pcr11")
default hardware := 97
hardware := 2 if input.tpm.svn in query_reference_value("toString")
none := query_reference_value("absent") == null
`;
    const rules = ['data.policy.trust_claims', 'data.policy.none'];
    const functions = { query_reference_value: { tpm_pcr11: ['aa', 'bb'], unused: 1 } };
    const result = await engine.evaluate({ policy, rules, input: { tpm: { pcr11: 'bb', svn: 1 } }, functions });
    expect(result.values).toEqual({
      'data.policy.trust_claims': { executables: 3, hardware: 2 + 95 },
      'data.policy.none': true,
    });
    expect(result.referenceValueIds).toEqual(['tpm_pcr11', 'toString', 'absent']);
    await expect(engine.evaluate({ policy, rules, input: {} })).rejects.toMatchObject({ code: 'POLICY_INVALID' });
  });

  it('runs the idioms of Trustee’s default policies', async () => {
    const policy = `package policy
import rego.v1
default executables := 33
default hardware := 97
default configuration := 36
trust_claims := {"executables": executables, "hardware": hardware, "configuration": configuration}
executables := 3 if {
  input.snp
  input.snp.measurement in query_reference_value("snp_launch_measurement")
}
hardware := 2 if {
  input.snp.reported_tcb_snp in query_reference_value("snp_snp_svn")
}
configuration := 2 if {
  input.snp.policy_debug_allowed == false
  input.snp.platform_smt_enabled in query_reference_value("snp_smt_enabled")
} else := 3 if {
  input.snp.policy_debug_allowed == false
}
extensions := [{"name": "ear.trustee.identifiers", "key": -18, "value": {"validated": {"container_images": [image |
  some container in input.init_data_claims.agent_policy_claims.containers
  image := container.OCI.Annotations["io.kubernetes.cri.image-name"]
]}}}]
`;
    const input = {
      snp: { measurement: 'm', reported_tcb_snp: 8, policy_debug_allowed: false, platform_smt_enabled: true },
      init_data_claims: {
        agent_policy_claims: { containers: [{ OCI: { Annotations: { 'io.kubernetes.cri.image-name': 'i' } } }] },
      },
    };
    const rules = ['data.policy.trust_claims', 'data.policy.extensions'];
    const functions = { query_reference_value: { snp_launch_measurement: ['m'], snp_snp_svn: [7, 8] } };
    expect((await engine.evaluate({ policy, rules, input, functions })).values).toEqual({
      'data.policy.trust_claims': { executables: 3, hardware: 2, configuration: 3 },
      'data.policy.extensions': [
        { name: 'ear.trustee.identifiers', key: -18, value: { validated: { container_images: ['i'] } } },
      ],
    });
    const none = (await engine.evaluate({ policy, rules, input, functions: { query_reference_value: {} } })).values;
    expect(none['data.policy.trust_claims']).toEqual({ executables: 33, hardware: 97, configuration: 3 });
  });

  it('gathers prints, and lets a builtin fail softly where asked', async () => {
    const policy = 'package p\nx if {\n  print("saw", input.a)\n  to_number("no number")\n}\nx if true';
    const more = { strictBuiltinErrors: false, gatherPrints: true };
    const { values, prints } = await engine.evaluate({ policy, rules: ['data.p.x'], input: { a: 1 }, ...more });
    expect([values['data.p.x'], prints]).toEqual([true, ['policy.rego:3: saw 1']]);
    await expect(evaluate(policy, 'data.p.x')).rejects.toMatchObject({ code: 'POLICY_INVALID' });
  });

  it('checks a policy without evaluating it', async () => {
    await engine.check('package p\nx := 1 / input.zero\nloop(n) := loop(n + 1)\ny := loop(1)');
    for (const policy of ['', 'x := 1', 'package p\nx := {', 'package p\nx := 1\nx if {']) {
      await expect(engine.check(policy), policy).rejects.toMatchObject({ code: 'POLICY_INVALID' });
    }
  });

  it.each([
    'http.send({"method": "GET", "url": "http://192.0.2.1/"})',
    'opa.runtime()',
    'net.lookup_ip_addr("localhost")',
    'io.jwt.decode("x")',
    'rego.parse_module("a", "b")',
  ])('G-26: a policy cannot reach out: %s', async (call) => {
    await expect(evaluate(`package p\nx := ${call}`, 'data.p.x')).rejects.toMatchObject({
      code: 'POLICY_INVALID',
      message: expect.stringContaining('could not find function'),
    });
  });
});

describe('limits of a policy', () => {
  const cases: [what: string, policy: string, code: string][] = [
    ['endless recursion', 'package p\nf(n) := f(n + 1)\nx := f(1)', 'POLICY_TIMEOUT'],
    ['a huge range', 'package p\nx := count(numbers.range(1, 100000000))', 'POLICY_TIMEOUT'],
    [
      'nested loops',
      'package p\nx := count([1 | some i in numbers.range(1, 30000); some j in numbers.range(1, 30000); i == j])',
      'POLICY_TIMEOUT',
    ],
    [
      'growing text',
      'package p\nx := [s | some i in numbers.range(1, 200000); s := concat("", [t | some j in numbers.range(1, 1000); t := sprintf("%d-%d", [i, j])])]',
      'POLICY_TIMEOUT',
    ],
    [
      'builtins without end',
      'package p\nx := [r | some i in numbers.range(1, 100000); r := numbers.range(1, i)]',
      'POLICY_TIMEOUT',
    ],
    ['deep nesting', `package p\nx := ${'['.repeat(17)}${']'.repeat(17)}`, 'POLICY_INVALID'],
    ['very deep nesting', `package p\nx := ${'{"a":'.repeat(100_000)}`, 'POLICY_INVALID'],
    ['a panic of the engine', 'package p\nx := strings.count("a", "")', 'POLICY_INVALID'],
    ['a line that is too long', `package p\nx := "${'a'.repeat(70_000)}"`, 'POLICY_INVALID'],
    ['too many lines', `package p\n${'\n'.repeat(210_000)}`, 'POLICY_INVALID'],
  ];

  it.each(cases)('G-26, finding 12: %s is refused in time, and the engine goes on', async (_what, policy, code) => {
    const started = performance.now();
    const other = Promise.all(
      Array.from({ length: 4 }, (_item, n) => evaluate('package q\ny := input.n', 'data.q.y', { n })),
    );
    await expect(evaluate(policy, 'data.p.x')).rejects.toMatchObject({ code });
    expect(performance.now() - started).toBeLessThan(6000);
    expect(await other).toEqual([0, 1, 2, 3]);
    expect(await evaluate('package q\ny := 1', 'data.q.y')).toBe(1);
  });

  it('G-26: a builtin that never looks at the clock is killed with its thread', async () => {
    const limited = createRegoEngine({ timeoutMs: 200, workers: 1 });
    // Warm, so that the limit measures the policy alone.
    await limited.check('package p');
    // Parsing does not look at the clock either: below the nesting limit, but thousands of times.
    const policy = `package p\n${Array.from({ length: 400 }, (_item, n) => `x${n} := ${'{"a":'.repeat(16)}1${'}'.repeat(16)}`).join('\n')}`;
    const started = performance.now();
    const [slow, waiting] = await Promise.allSettled([
      limited.check(policy),
      limited.evaluate({ policy: 'package q\ny := 1', rules: ['data.q.y'], input: {} }),
    ]);
    expect(slow).toMatchObject({
      status: 'rejected',
      reason: { code: 'POLICY_TIMEOUT', message: expect.stringContaining('200 ms') },
    });
    expect(performance.now() - started).toBeLessThan(3000);
    expect(waiting).toMatchObject({ status: 'fulfilled', value: { values: { 'data.q.y': 1 } } });
    await limited.close();
  });

  it('limits the size of policy, input and data', async () => {
    const small = createRegoEngine({ maxPolicyBytes: 20 });
    await expect(small.check('package p\nx := "äöüäöü"')).rejects.toMatchObject({ code: 'POLICY_INVALID' });
    await small.close();
    const big = 'x'.repeat(17 * 1024 * 1024);
    await expect(evaluate('package p\nx := 1', 'data.p.x', big)).rejects.toMatchObject({ code: 'REQUEST_TOO_LARGE' });
    await expect(evaluate('package p\nx := 1', 'data.p.x', {}, { data: { big } })).rejects.toMatchObject({
      code: 'REQUEST_TOO_LARGE',
    });
  });

  it('keeps its footing over many policies and evaluations', async () => {
    const many = createRegoEngine({ workers: 2, memoryPages: 512 });
    const policies = Array.from(
      { length: 80 },
      (_item, n) => `package p\nx := ${n}\ntext := "${String(n).repeat(20_000)}"`,
    );
    for (const round of [1, 2]) {
      const results = await Promise.all(
        policies.map(
          async (policy) => (await many.evaluate({ policy, rules: ['data.p.x'], input: { round } })).values['data.p.x'],
        ),
      );
      expect(results).toEqual(policies.map((_policy, n) => n));
    }
    await many.close();
    await expect(many.check('package p')).rejects.toThrow(/closed/);
  });

  it('starts no thread before the first policy, and closes without one', async () => {
    const idle = createRegoEngine({ wasmUrl: new URL('file:///does/not/exist') });
    await idle.close();
    const broken = createRegoEngine({ wasmUrl: new URL('file:///does/not/exist') });
    await expect(broken.check('package p')).rejects.toThrow(/ENOENT/);
  });
});

describe('the committed module', () => {
  it('has the recorded hash', () => {
    const [recorded] = readFileSync(new URL('./regorus.wasm.sha256', import.meta.url), 'utf8').split(' ');
    const hash = createHash('sha256')
      .update(readFileSync(new URL('./regorus.wasm', import.meta.url)))
      .digest('hex');
    expect(hash).toBe(recorded);
  });
});
