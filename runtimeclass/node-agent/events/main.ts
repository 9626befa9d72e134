/**
 * Events of pods and the capacity of a node, without the rest of the node agent: for a development cluster, which has no
 * DaemonSet.
 *
 * `node runtimeclass/node-agent/events/main.ts --kubeconfig FILE --node NAME --status-socket FILE [--resource NAME --machines COUNT]`
 *
 * Logs JSON lines to standard error. SIGTERM and SIGINT end it.
 * Exit codes: 0 ended as asked, 1 failed, 2 wrong usage.
 *
 * @module
 */
import { parseArgs } from 'node:util';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { fixOf } from '@sealpod/protocol/reason-codes';
import { pino } from 'pino';
import { advertiseCapacity } from './capacity.ts';
import { publishPodEvents } from './publish.ts';
import { loadKubeConfig } from './read.ts';

const log = pino(
  {
    base: { part: 'node-agent' },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  },
  pino.destination({ fd: 2, sync: true }),
);

function required(value: string | undefined, option: string): string {
  if (value) return value;
  throw new SealpodError('USAGE', `--${option} is missing`);
}

try {
  const { values } = parseArgs({
    strict: true,
    options: {
      kubeconfig: { type: 'string' },
      node: { type: 'string' },
      'status-socket': { type: 'string' },
      resource: { type: 'string', default: 'sealpod.io/vm' },
      machines: { type: 'string' },
    },
  });
  const kubeConfig = loadKubeConfig(required(values.kubeconfig, 'kubeconfig'));
  const nodeName = required(values.node, 'node');
  const statusSocket = required(values['status-socket'], 'status-socket');
  const ending = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => ending.abort());
  const common = { kubeConfig, nodeName, signal: ending.signal, log };
  const work = [publishPodEvents({ ...common, statusSocket })];
  if (values.machines !== undefined) {
    const count = Number(values.machines);
    if (!Number.isSafeInteger(count) || count < 0)
      throw new SealpodError('USAGE', '--machines must be a number of machines', { actual: values.machines });
    work.push(advertiseCapacity({ ...common, resource: values.resource, count }));
  }
  log.info({ node: nodeName, statusSocket, machines: values.machines ?? null }, 'serving');
  await Promise.all(work);
} catch (thrown) {
  const isUsage = (thrown as NodeJS.ErrnoException).code?.startsWith('ERR_PARSE_ARGS');
  const error = asSealpodError(thrown, isUsage ? 'USAGE' : 'INTERNAL');
  log.error({ code: error.code, fix: fixOf(error) }, error.message);
  process.exitCode = error.code === 'USAGE' ? 2 : 1;
}
