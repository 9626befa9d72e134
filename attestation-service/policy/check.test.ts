import { SealpodError } from '@sealpod/protocol/errors';
import { createRegoEngine, readPolicySource } from '@sealpod/rego';
import { afterAll, describe, expect, it } from 'vitest';
import type { SeenClaims } from '../appraisal/recent-claims.ts';
import { checkAttestationPolicy } from './check.ts';

const rego = createRegoEngine({ timeoutMs: 500, memoryPages: 1024 });
afterAll(() => rego.close());

const policy = (body: string): string => `package policy\nimport rego.v1\n${body}\n`;
const refusal = async (text: string, id = 'mine_cpu', seen: SeenClaims[] = []): Promise<SealpodError> => {
  const thrown: unknown = await checkAttestationPolicy(rego, { id, policy: text }, { seen }).catch(
    (error: unknown) => error,
  );
  expect(thrown, text).toBeInstanceOf(SealpodError);
  return thrown as SealpodError;
};
const machine: SeenClaims = {
  tee: 'snp',
  teeClass: 'cpu',
  correlationId: 'c-1',
  at: '2026-01-01T00:00:00Z',
  claims: { measurement: 'aa' },
  input: { snp: { measurement: 'aa' } },
};

describe('G-26: what an uploaded attestation policy may call', () => {
  it.each([
    'http.send({"method": "get", "url": "http://127.0.0.1"})',
    'opa.runtime()',
    'net.lookup_ip_addr("example.org")',
    'net.cidr_contains("10.0.0.0/8", "10.0.0.1")',
    'rego.metadata.rule()',
    'io.jwt.decode("a.b.c")',
    'uuid.rfc4122("")',
    'rand.intn("a", 3)',
    'crypto.sha256("a")',
    'providers.aws.sign_req({}, {}, 1)',
    'no_such_function(1)',
  ])('not %s, also where the rule is never evaluated in a dry run', async (call) => {
    const [name = ''] = call.split('(');
    for (const body of [
      `trust_claims := {"hardware": 2} if ${call}`,
      `trust_claims := {"hardware": 2} if { input.never == 1\n x := ${call} }`,
      `trust_claims := {"hardware": 2}\nhelper(x) := y if { y := [z | z := ${call}] }`,
      `trust_claims := {"hardware": 2}\nother := {"a": ${call.replace('(', ' (')}}`,
    ]) {
      const error = await refusal(policy(body));
      expect(error.code, body).toBe('POLICY_INVALID');
      expect(`${error.message} ${error.detail.actual}`).toContain(name);
    }
  });

  it('but its own functions, those of the engine and query_reference_value, and names in strings and comments', async () => {
    const { referenceValueIds } = await checkAttestationPolicy(rego, {
      id: 'mine_cpu',
      policy: policy(`# http.send({}) is what it does not call
known(value, id) if value in query_reference_value(id)
message := "opa.runtime()"
raw := \`net.lookup_ip_addr("a")\`
trust_claims := {"hardware": hardware}
default hardware := 97
hardware := 2 if { known(1, "svn"); startswith("ab", "a"); count([1]) == 1; sprintf("%d", [1]) == "1"; data.policy.known(1, "b") }
`),
    });
    expect(referenceValueIds).toEqual(['svn']);
  });
});

describe('what an uploaded attestation policy must be', () => {
  it.each([
    ['package policy\ntrust_claims := {', 'does not compile', ''],
    ['package other\ntrust_claims := {"hardware": 2}', 'another package', 'package other'],
    [policy('allow := true'), 'no rule trust_claims', 'allow'],
    [policy('# trust_claims := {"hardware": 2}\nx := "trust_claims := 1"'), 'no rule trust_claims', ''],
    [policy('trust_claims := {"luck": 2}'), 'an unknown trust claim', ''],
    [policy('trust_claims := {"luck": 2} if input.snp'), 'an unknown trust claim for a TEE', ''],
    [policy('trust_claims := {"hardware": "2"}'), 'a value that is no integer', ''],
    [policy('trust_claims := {"hardware": 300}'), 'a value that is too large', ''],
    [policy('trust_claims := {}'), 'no claim', ''],
    [policy('trust_claims := [1]'), 'no object', ''],
    [policy('trust_claims := {"hardware": 2}\nextensions := [{"name": "a"}]'), 'a malformed extension', ''],
    [policy('trust_claims := {"hardware": 2}\nextensions := 1'), 'extensions that are no array', ''],
  ])('%j: %s is refused', async (text, _why, actual) => {
    const error = await refusal(text);
    expect(error.code).toBe('POLICY_INVALID');
    if (actual !== '') expect(error.detail.actual).toContain(actual);
  });

  it('is tried on evidence that was verified here lately', async () => {
    const text = policy('trust_claims := {"hardware": 2, "luck": 2} if input.snp.measurement == "aa"');
    await checkAttestationPolicy(rego, { id: 'mine_cpu', policy: text });
    const error = await refusal(text, 'mine_cpu', [machine]);
    expect(error.message).toMatch(/unknown trust claim luck.*snp evidence of c-1/);
    await checkAttestationPolicy(rego, { id: 'mine_gpu', policy: text }, { seen: [machine] });
    const { dryRuns } = await checkAttestationPolicy(
      rego,
      {
        id: 'mine_cpu',
        policy: policy('trust_claims := {"hardware": 2} if input.snp.measurement in query_reference_value("m")'),
      },
      { seen: [machine], referenceValues: { m: ['aa'] } },
    );
    expect(dryRuns).toEqual([{ tee: 'snp', correlationId: 'c-1', status: 'affirming', vector: { hardware: 2 } }]);
  });

  it.each([
    ['an endless loop', 'trust_claims := {"hardware": f(0)}\nf(x) := f(x + 1)'],
    [
      'a loop over a large range',
      'trust_claims := {"hardware": count([1 | some i in numbers.range(1, 3000); some j in numbers.range(1, 3000); i == j])}',
    ],
    ['memory', 'trust_claims := {"hardware": count(numbers.range(1, 100000000))}'],
  ])('ends in a refusal within its limit: %s', async (_what, body) => {
    const started = performance.now();
    expect(['POLICY_TIMEOUT', 'POLICY_INVALID']).toContain((await refusal(policy(body))).code);
    expect(performance.now() - started).toBeLessThan(5000);
    // The engine goes on.
    await checkAttestationPolicy(rego, { id: 'mine_cpu', policy: policy('trust_claims := {"hardware": 2}') });
  });
});

describe('the text of a policy', () => {
  it('tells package, rules and calls', () => {
    expect(
      readPolicySource(
        'package  policy\nimport rego.v1\ndefault a := 1\na := f (2) if { g.h(input.x) }\nb contains 1\nc.d := 2\n',
      ),
    ).toEqual({ packageName: 'policy', rules: ['a', 'b', 'c'], calls: ['f', 'g.h'] });
    expect(readPolicySource('# package policy\n')).toMatchObject({ packageName: undefined });
  });
});
