import type { PolicyCheck } from '@sealpod/attestation-service/offline';
import { SealpodError } from '@sealpod/protocol/errors';
import { createRegoEngine, type RegoEngine } from '@sealpod/rego';
import type { Command } from 'commander';
import { writeResult } from '../terminal/output.ts';
import { globalOptions, kbsClientFor, readText } from './context.ts';
import { verifiedFile } from './verify.ts';

type PolicyKind = 'resource' | 'attestation';

/** @throws SealpodError USAGE */
export function kindOf(text: string): PolicyKind {
  if (text === 'resource' || text === 'attestation') return text;
  throw new SealpodError('USAGE', 'unknown policy kind', { expected: 'resource or attestation', actual: text });
}

interface TestOptions {
  readonly file: string;
  readonly input?: string;
  readonly evidence?: string;
  readonly collateral?: string;
  readonly tee?: string;
  readonly from?: string;
  readonly data?: string;
  readonly referenceValues?: string;
}

interface TestAnswer {
  readonly values: Readonly<Record<string, unknown>>;
  readonly prints: readonly string[];
  readonly referenceValueIds?: readonly string[];
}

const rules: Readonly<Record<PolicyKind, readonly string[]>> = {
  resource: ['data.policy.allow'],
  attestation: ['data.policy.trust_claims', 'data.policy.extensions'],
};

async function withEngine<Result>(work: (rego: RegoEngine) => Promise<Result>): Promise<Result> {
  const rego = createRegoEngine();
  try {
    return await work(rego);
  } finally {
    await rego.close();
  }
}

/** The evidence as the policy sees it: verified on this machine first, without runtime data and initdata. */
async function inputOfEvidence(file: string, { collateral, tee }: TestOptions): Promise<unknown> {
  const verified = await verifiedFile(file, {
    ...(collateral === undefined ? {} : { collateral }),
    ...(tee === undefined ? {} : { tee }),
    allowSample: true,
  });
  const { report_data: reportData, init_data: initData, ...claims } = verified.submodules[0]?.claims ?? {};
  return {
    [verified.tee]: claims,
    ...(reportData === undefined ? {} : { report_data: reportData, runtime_data_claims: null }),
    ...(initData === undefined ? {} : { init_data: initData, init_data_claims: null }),
  };
}

async function test(kind: PolicyKind, options: TestOptions, command: Command): Promise<TestAnswer> {
  const { file, input, evidence, from, tee, data, referenceValues } = options;
  const sources = [input, evidence, from ?? (evidence === undefined ? tee : undefined)];
  if (sources.filter((source) => source !== undefined).length !== 1)
    throw new SealpodError('USAGE', 'give one thing to evaluate the policy against', {
      expected: '--input FILE, --evidence FILE, --from CORRELATION-ID or --tee TEE',
    });
  const policy = readText(file);
  const document = input === undefined ? undefined : parseJsonFile(input);
  const values =
    referenceValues === undefined ? undefined : referenceValuesOf(parseJsonFile(referenceValues), referenceValues);
  const facts = data === undefined ? undefined : parseJsonFile(data);
  const local = (document !== undefined || evidence !== undefined) && (kind === 'resource' || values !== undefined);
  // With everything given nobody has to be asked.
  if (local) {
    const given = document ?? (await inputOfEvidence(evidence ?? '', options));
    const functions = { query_reference_value: values ?? {} };
    return withEngine((rego) =>
      rego.evaluate({ policy, rules: rules[kind], input: given, data: facts ?? {}, functions, gatherPrints: true }),
    );
  }
  const material =
    document === undefined && evidence === undefined
      ? { evidence: from === undefined ? { tee } : { correlationId: from } }
      : { input: document ?? (await inputOfEvidence(evidence ?? '', options)) };
  return (await kbsClientFor(command).post('/admin/v1/policies/test', {
    kind,
    policy,
    ...material,
    ...(facts === undefined ? {} : { data: facts }),
    ...(values === undefined ? {} : { referenceValues: values }),
  })) as TestAnswer;
}

/** What `sealpod podvm measure` writes, what `refvalue list -o json` writes, or an object of values. */
function referenceValuesOf(content: unknown, file: string): Readonly<Record<string, unknown>> {
  if (Array.isArray(content)) {
    const entries = content as readonly { readonly id?: unknown; readonly value?: unknown }[];
    return Object.fromEntries(entries.map(({ id, value }) => [String(id), value]));
  }
  if (typeof content !== 'object' || content === null)
    throw new SealpodError('USAGE', `${file} holds no reference values`, { expected: 'a JSON object or list' });
  return ('reference_values' in content ? content.reference_values : content) as Readonly<Record<string, unknown>>;
}

function parseJsonFile(file: string): unknown {
  const text = readText(file);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new SealpodError('USAGE', `${file} is no JSON`, { cause });
  }
}

/** `sealpod policy test|check`. */
export function addPolicyTestCommands(policy: Command): void {
  policy
    .command('test')
    .description('evaluate a policy without storing it; exits 1 where a resource policy denies')
    .argument('<kind>', 'resource or attestation')
    .requiredOption('--file <file>', 'Rego text')
    .option('--input <file>', 'JSON input: token claims for a resource policy, claims for an attestation policy')
    .option('--evidence <file>', 'for an attestation policy: evidence in a file, verified on this machine first')
    .option('--collateral <directory>', 'certificates and lists for --evidence')
    .option('--from <correlation-id>', 'for an attestation policy: what the key broker verified of this guest')
    .option('--tee <tee>', 'what the key broker verified last of this TEE; with --evidence, the TEE of the file')
    .option('--reference-values <file>', 'values to use instead of the registered ones')
    .option('--data <file>', 'JSON data, e.g. {"plugin":"resource","resource-path":["default","key","1"],"query":{}}')
    .addHelpText(
      'after',
      '\nExamples:\n  sealpod policy test resource --file only-web.rego --input claims.json\n  sealpod policy test attestation --file mine.rego --tee snp\n  sealpod policy test attestation --file mine.rego --evidence evidence.json --reference-values values.json',
    )
    .action(async (kind: string, options: TestOptions, command: Command) => {
      const result = await test(kindOf(kind), options, command);
      writeResult(
        globalOptions(command).output,
        result,
        ['rule', 'value'],
        [...Object.entries(result.values), ...result.prints.map((text) => ['print', text] as const)].map(
          ([name, value]) => [name, JSON.stringify(value) ?? 'undefined'],
        ),
      );
      if (kind === 'resource' && result.values['data.policy.allow'] !== true) process.exitCode = 1;
    });

  policy
    .command('check')
    .description('the checks that storing a policy makes, on this machine and without storing it')
    .argument('<kind>', 'resource or attestation')
    .requiredOption('--file <file>', 'Rego text, - for standard input')
    .option('--id <id>', 'of an attestation policy: <policy>_<class>, which tells what it is tried on', 'default_cpu')
    .option('--stored', 'try an attestation policy also on evidence that the key broker verified lately')
    .addHelpText('after', '\nExample:\n  sealpod policy check attestation --file mine.rego --id mine_gpu')
    .action(async (kind: string, options: { file: string; id: string; stored?: boolean }, command: Command) => {
      const { output } = globalOptions(command);
      const checked = await check(kindOf(kind), options, command);
      writeResult(
        output,
        { ok: true, kind, ...checked },
        ['check', 'result'],
        [
          ['compiles, rules, functions', 'ok'],
          ...(kind === 'attestation'
            ? [['reference values asked for', checked.referenceValueIds.join(', ') || 'none']]
            : []),
          ...checked.dryRuns.map(({ tee, correlationId, status }) => [`${tee} evidence of ${correlationId}`, status]),
        ],
      );
    });
}

async function check(
  kind: PolicyKind,
  { file, id, stored }: { readonly file: string; readonly id: string; readonly stored?: boolean },
  command: Command,
): Promise<PolicyCheck> {
  const policy = readText(file);
  if (stored === true && kind === 'attestation')
    return (await kbsClientFor(command).post('/admin/v1/policies/check', { id, policy })) as PolicyCheck;
  const { checkAttestationPolicy, checkPolicySource } = await import('@sealpod/attestation-service/offline');
  return withEngine(async (rego) => {
    if (kind === 'attestation') return checkAttestationPolicy(rego, { id, policy });
    await rego.check(policy);
    await checkPolicySource(rego, policy, 'allow');
    return { referenceValueIds: [], dryRuns: [] };
  });
}
