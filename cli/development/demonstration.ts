import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { readText } from '../commands/context.ts';
import { decisionsOf, tellDecisions } from '../commands/explain.ts';
import { encryptIntoEnvironment, pushExampleImage } from '../image/environment.ts';
import type { KbsClient } from '../kbs-client/client.ts';
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
      stage,
    ).then(
      () => undefined,
      (thrown: unknown) => asSealpodError(thrown),
    );
    if (refusal === undefined)
      throw new SealpodError('INTERNAL', 'the altered machine got the key', {
        expected: 'a refusal',
        actual: 'a running pod',
      });
    const { correlationId } = refusal.detail;
    if (correlationId === undefined) throw refusal;
    progress.say(`  refused with ${refusal.code}, as it must be; sealpod explain ${correlationId}`);
    progress.say(indent(tellDecisions(await decisionsOf(client, correlationId), false)));
  } finally {
    cri.close();
  }
}

function indent(text: string): string {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => `  ${line}`)
    .join('\n');
}
