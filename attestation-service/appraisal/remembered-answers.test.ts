import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { builtInPolicies } from '../policy/built-in.ts';
import { policyRecord } from '../policy/record.ts';
import { policyReads, readsOf } from './policy-reads.ts';
import { RememberedAnswers } from './remembered-answers.ts';

const module_ = (body: string): string => `package policy\nimport rego.v1\n${body}`;

describe('what a policy reads', () => {
  it('is told where every mention of input is followed by names', () => {
    expect(policyReads(module_('a if input.snp.measurement == input.init_data # input'))).toEqual([
      ['init_data'],
      ['snp', 'measurement'],
    ]);
    expect(policyReads(module_('a := object.get(input, ["x", "y z"], []) if input["az-snp"].b["c.d"]'))).toEqual([
      ['az-snp', 'b', 'c.d'],
      ['x', 'y z'],
    ]);
    expect(policyReads(builtInPolicies['default_cpu'] ?? '')).toContainEqual(['snp']);
    expect(policyReads(builtInPolicies['default_cpu'] ?? '')).not.toContainEqual(['runtime_data_claims']);
  });

  it.each([
    'a := input',
    'a := input["s\\np"]',
    'a := object.get(input, ["a", x], 1)',
    'a := object.get(input, [], 1)',
    'a := input[x]',
    'a := walk(input)',
    'a := input .snp',
    'import input as x',
    'a := object.get(input, "snp", 1)',
    'a := "input"',
    'a := `# input`',
    'a := time.now_ns() > input.snp.x',
    'a := rand.intn("x", 5)',
    'a := uuid.rfc4122("x")',
    'a if input.snp.x with input as {}',
  ])('is not told of %s', (body) => {
    expect(policyReads(module_(body))).toBeUndefined();
  });

  it('is told apart: nothing, null, and any value from any other', () => {
    const reads = [['snp', 'x']];
    const texts = [{}, { snp: null }, { snp: { x: null } }, { snp: { x: [] } }, { snp: { x: '' } }, { snp: [1] }];
    const [absent, ...others] = texts.map((input) => readsOf(reads, input));
    expect(others.filter((text) => text === absent)).toHaveLength(2);
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), (one, other) => {
        const text = (x: unknown): string => readsOf(reads, { snp: { x } } as never);
        expect(text(one) === text(other)).toBe(JSON.stringify(one) === JSON.stringify(other));
      }),
    );
  });
});

describe('remembered answers', () => {
  const values = { rv: ['1'] };
  const record = policyRecord(
    'p_cpu',
    module_('trust_claims := {"hardware": 2} if input.snp.m == "1"'),
    false,
    new Date(0),
  );

  async function asked(...requests: Parameters<RememberedAnswers['get']>[]): Promise<number> {
    const answers = new RememberedAnswers();
    let evaluations = 0;
    for (const [policy, input, referenceValues] of requests) {
      await answers.get(policy, input, referenceValues, async () => {
        evaluations += 1;
        return { values: {}, referenceValueIds: [] };
      });
    }
    return evaluations;
  }
  const request = (
    input: Parameters<RememberedAnswers['get']>[1],
    over: { record?: typeof record; values?: typeof values } = {},
  ): Parameters<RememberedAnswers['get']> => [
    over.record ?? record,
    input,
    over.values ?? values,
    () => Promise.reject(new Error('not called')),
  ];

  it('are used for the same claims, whatever nonce they came with', async () => {
    const with_ = (nonce: string) => request({ snp: { m: '1' }, runtime_data_claims: { nonce } });
    expect(await asked(with_('a'), with_('b'), with_('c'))).toBe(1);
  });

  it('are not used for other claims, another policy, other reference values or one that has expired', async () => {
    const same = { snp: { m: '1' } };
    expect(await asked(request(same), request({ snp: { m: '2' } }))).toBe(2);
    expect(await asked(request(same), request({}))).toBe(2);
    const other = policyRecord('p_cpu', `${record.policy} `, false, new Date(0));
    expect(await asked(request(same), request(same, { record: other }))).toBe(2);
    expect(await asked(request(same), request(same, { values: { rv: ['1'] } }))).toBe(2);
    expect(await asked(request(same), request(same, { values: {} as typeof values }))).toBe(2);
    expect(await asked(request(same, { values: {} as typeof values }), request(same))).toBe(2);
  });

  it('are not made of failures, nor of policies whose reads are not told', async () => {
    const answers = new RememberedAnswers();
    const failing = (): Promise<never> => Promise.reject(new Error('no'));
    await expect(answers.get(record, {}, values, failing)).rejects.toThrow('no');
    const untold = policyRecord('p_cpu', module_('a := input[x]'), false, new Date(0));
    expect(await asked(request({}, { record: untold }), request({}, { record: untold }))).toBe(2);
    await expect(
      answers.get(record, {}, values, async () => ({ values: {}, referenceValueIds: ['x'] })),
    ).resolves.toMatchObject({ referenceValueIds: ['x'] });
  });
});
