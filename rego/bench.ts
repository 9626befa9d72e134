/**
 * Times of the policy engine: `node rego/bench.ts`, or `benchRego()` from elsewhere.
 *
 * @module
 */
import { readFile } from 'node:fs/promises';
import { performance } from 'node:perf_hooks';
import { createRegoEngine } from './engine.ts';

const rounds = 200;

const smallPolicy = `package policy
default allow := false
allow if {
  data.plugin == "resource"
  every submod in input.submods { submod["ear.status"] == "affirming" }
}
`;

/** A policy of about the size of a generated agent policy: many rules, and a large literal. */
function largePolicy(): string {
  const rules = Array.from(
    { length: 300 },
    (_item, n) => `rule_${n}(x) if {\n  x.kind == "k${n}"\n  regex.match("^[a-z]+-${n}$", x.name)\n}\n`,
  );
  const containers = Array.from({ length: 40 }, (_item, n) =>
    JSON.stringify({ args: [`/bin/p${n}`], env: [`A=${n}`], mounts: [{ destination: `/m${n}`, options: ['ro'] }] }),
  );
  return `package agent_policy\n${rules.join('\n')}\ndefault CreateContainerRequest := false\nCreateContainerRequest if {\n  some c in policy_data.containers\n  c.args == input.args\n}\npolicy_data := {"containers": [\n${containers.join(',\n')}\n]}\n`;
}

/** Milliseconds, median. */
export interface RegoFigures {
  readonly compileModule: number;
  readonly firstEvaluation: number;
  readonly smallPolicyNew: number;
  readonly smallPolicyPrepared: number;
  readonly largePolicyNew: number;
  readonly largePolicyPrepared: number;
}

/** Measures on this machine, through the worker as callers see it. */
export async function benchRego(): Promise<RegoFigures> {
  const bytes = await readFile(new URL('./regorus.wasm', import.meta.url));
  const compileModule = await median(5, () => WebAssembly.compile(bytes));
  const firstEvaluation = await median(3, async () => {
    const fresh = createRegoEngine({ workers: 1 });
    await fresh.check(smallPolicy);
    await fresh.close();
  });
  const engine = createRegoEngine({ workers: 1, timeoutMs: 10_000 });
  let serial = 0;
  const small = (policy: string) =>
    engine.evaluate({
      policy,
      rules: ['data.policy.allow'],
      input: { submods: { cpu0: { 'ear.status': 'affirming' } } },
      data: { plugin: 'resource', 'resource-path': ['default', 'key', String(serial++)] },
    });
  const text = largePolicy();
  const large = (policy: string) =>
    engine.evaluate({ policy, rules: ['data.agent_policy.CreateContainerRequest'], input: { args: ['/bin/p39'] } });
  await small(smallPolicy);
  const figures = {
    compileModule,
    firstEvaluation,
    smallPolicyNew: await median(rounds, () => small(`${smallPolicy}# ${serial}\n`)),
    smallPolicyPrepared: await median(rounds, () => small(smallPolicy)),
    largePolicyNew: await median(rounds / 10, () => large(`${text}# ${serial++}\n`)),
    largePolicyPrepared: await median(rounds, () => large(text)),
  };
  await engine.close();
  return figures;
}

async function median(times: number, work: () => Promise<unknown>): Promise<number> {
  const taken: number[] = [];
  for (let round = 0; round < times; round++) {
    const started = performance.now();
    await work();
    taken.push(performance.now() - started);
  }
  return taken.sort((a, b) => a - b)[Math.floor(times / 2)] ?? Number.NaN;
}

if (import.meta.main) {
  for (const [name, milliseconds] of Object.entries(await benchRego()))
    console.log(`${name}\t${milliseconds.toFixed(3)} ms`);
}
