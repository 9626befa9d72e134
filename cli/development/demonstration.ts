import type { Decision } from '@sealpod/kbs/audit';
import type { KbsClient } from '@sealpod/kbs-client';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { failures } from '@sealpod/protocol/verdict';
import { readText } from '../commands/context.ts';
import { decisionsOf, tellDecisions } from '../commands/explain.ts';
import { encryptIntoEnvironment, pushExampleImage } from '../image/environment.ts';
import { connectEnvironment } from '../pod/connect.ts';
import { resolveImage } from '../pod/image.ts';
import { readLog } from '../pod/log.ts';
import { enrolInitdata, initdataOf, type PodRequest, runPod } from '../pod/run.ts';
import type { Progress } from '../terminal/progress.ts';
import type { Layout } from './layout.ts';
import type { EnvironmentState } from './state.ts';

const message = 'this text was encrypted until a measured machine proved itself';

/**
 * The two acts: an encrypted image runs in its own machine after attestation; the same pod on an altered machine is
 * refused.
 *
 * @throws SealpodError where the first act fails, or the second one does not
 */
export async function demonstrate(
  layout: Layout,
  state: EnvironmentState,
  client: KbsClient,
  progress: Progress,
): Promise<void> {
  progress.say('\nact 1: a sealed pod');
  await progress.step('example image', () => pushExampleImage(state, 'plain/hello:1', message));
  await progress.step('image encrypted, key in the key broker', () =>
    encryptIntoEnvironment(state, client, {
      source: 'plain/hello:1',
      destination: 'sealed/hello:1',
      keyPath: 'default/image-key/hello',
    }),
  );
  const image = await resolveImage(state, 'sealed/hello:1');
  const request: PodRequest = {
    name: 'hello',
    image: image.reference,
    args: image.command,
    environment: [],
    allowExec: false,
    kbsUrl: state.kbsUrl ?? '',
    kbsCertificatePem: readText(state.kbsCertificateFile ?? ''),
  };
  const initdata = initdataOf(request);
  await progress.step('initdata digest enrolled', () => enrolInitdata(client, initdata));
  const cri = connectEnvironment(state);
  const stage = <T>(name: string, run: () => Promise<T>): Promise<T> => progress.step(name, run);
  try {
    const pod = await runPod(cri, layout, state, request, initdata, stage);
    const output = await progress.step('output of the container', () =>
      readLog(pod.logFile, (text) => text.includes(message)),
    );
    progress.say(`  the container says: ${output.trim()}`);

    progress.say('\nact 2: the same pod on an altered machine');
    const refusal = await runPod(
      cri,
      layout,
      state,
      { ...request, name: 'altered', podVmImage: 'altered' },
      initdata,
      (name, run) => progress.refusable(name, run),
    ).then(
      () => undefined,
      (thrown: unknown) => asSealpodError(thrown),
    );
    const { code, correlationId } = expectRefusal(refusal);
    const decisions = await decisionsOf(client, correlationId);
    expectDifference(decisions, 'command line');
    progress.say(`  refused with ${code}, as it must be; sealpod explain ${correlationId}`);
    progress.say(indent(tellDecisions(decisions, false)));
  } finally {
    cri.close();
  }
}

function expectRefusal(refusal: SealpodError | undefined): { readonly code: string; readonly correlationId: string } {
  if (refusal === undefined) {
    throw new SealpodError('INTERNAL', 'the altered machine got the key', {
      expected: 'a refusal',
      actual: 'a running pod',
    });
  }
  const { correlationId } = refusal.detail;
  // Without an id it is not the key broker that refused: something else failed, and that is what is to be told.
  if (correlationId === undefined) throw refusal;
  return { code: refusal.code, correlationId };
}

/** The refusal must be for the component that was altered, and for no other reason. */
function expectDifference(decisions: readonly Decision[], component: string): void {
  const failed = decisions.flatMap(({ verdict }) => (verdict === undefined ? [] : failures(verdict)));
  if (failed.some(({ check, code }) => check === component && code === 'RV_MISMATCH')) return;
  throw new SealpodError('INTERNAL', `the altered machine was refused, but not for its ${component}`, {
    expected: `RV_MISMATCH of ${component}`,
    actual: failed.map(({ check, code }) => `${code} of ${check}`).join(', ') || 'no failed check',
  });
}

function indent(text: string): string {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => `  ${line}`)
    .join('\n');
}
