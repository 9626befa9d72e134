import { benchRego, type RegoFigures } from '@sealpod/rego/bench';
import { type BenchCase, figure } from '../measure.ts';

const names: Readonly<Record<keyof RegoFigures, string>> = {
  compileModule: 'compile the WebAssembly module',
  firstEvaluation: 'first use: worker, module, small policy',
  smallPolicyNew: 'small policy never seen before',
  smallPolicyPrepared: 'small policy, compiled before',
  largePolicyNew: 'policy of 300 rules never seen before',
  largePolicyPrepared: 'policy of 300 rules, compiled before',
};

export const policyEngine: BenchCase = {
  name: 'policy-engine',
  definition: 'one Rego evaluation through the worker, as the key broker and the guest see it',
  obstacle: () => undefined,
  run: async ({ runs }) => {
    await benchRego();
    const rounds: RegoFigures[] = [];
    for (let run = 0; run < runs; run++) rounds.push(await benchRego());
    const figures = (Object.keys(names) as (keyof RegoFigures)[]).map((key) =>
      figure(
        names[key],
        'ms',
        rounds.map((round) => round[key]),
      ),
    );
    return { figures, ratios: [], notes: ['each run is itself a median of 3 to 200 evaluations'] };
  },
};
