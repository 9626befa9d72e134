import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { call } from '../../kbs/testing/client.ts';
import { createKbsHome, type KbsHome, type KbsProcess } from '../../kbs/testing/process.ts';
import { type BenchCase, type BenchContext, type Figure, figure, type Ratio, ratio } from '../measure.ts';

const execute = promisify(execFile);
const ownGenerator = fileURLToPath(new URL('../load/rcar-load.ts', import.meta.url));
const resource = 'default/bench/key';
const openPolicy = 'package policy\nimport rego.v1\nallow if data.plugin == "resource"';
const seconds = { duration: 4, warmup: 2 };
const modes = { release: 'releases', bearer: 'token GETs' } as const;
const clientCounts = [1, 4, 16];

/** A key broker in a process of its own, with one secret that sample evidence may have. */
export interface LoadedKeyBroker {
  readonly home: KbsHome;
  readonly kbs: KbsProcess;
  readonly pid: number;
}

/** Starts one, over plain HTTP, with the sample verifier switched on. Remove its `home` afterwards. */
export async function startLoadedKeyBroker(): Promise<LoadedKeyBroker> {
  const home = createKbsHome({ insecureHttp: true });
  try {
    const kbs = await home.start();
    const headers = { authorization: `Bearer ${await home.token()}` };
    for (const [target, body] of [
      ['/admin/v1/policies/resource/open', openPolicy],
      [`/admin/v1/resources/${resource}?policy=open`, 'a secret of thirty-two characters'],
    ] as const) {
      const { status, text } = await call(kbs.address, target, { method: 'PUT', headers, body });
      if (status !== 200) throw new Error(`PUT ${target}: ${status} ${text}`);
    }
    return { home, kbs, pid: kbs.child.pid ?? Number.NaN };
  } catch (error) {
    await home.remove();
    throw error;
  }
}

/** One run of the load generator. */
export interface LoadRun {
  readonly perSec: number;
  readonly p50ms: number;
  readonly p99ms: number;
  readonly serverMsPerOp: number | null;
}

/** Runs the load generator once in a process of its own. @throws Error where it fails or counts errors */
export async function runLoad(
  context: Pick<BenchContext, 'loadGenerator'>,
  url: string,
  mode: keyof typeof modes,
  clients: number,
  pid?: number,
): Promise<LoadRun> {
  const { stdout } = await execute(process.execPath, [
    context.loadGenerator ?? ownGenerator,
    ...['--mode', mode, '--url', url, '--path', resource, '--concurrency', `${clients}`],
    ...['--duration', `${seconds.duration}`, '--warmup', `${seconds.warmup}`, '--runs', '1'],
    ...(pid === undefined ? [] : ['--server-pid', `${pid}`]),
  ]);
  const row = JSON.parse(stdout.split('\n')[0] ?? '') as LoadRun & { readonly errors?: number };
  if ((row.errors ?? 0) > 0) throw new Error(`the load generator counts errors: ${JSON.stringify(row)}`);
  return row;
}

export const keyBroker: BenchCase = {
  name: 'key-broker',
  definition:
    'full releases (challenge, attestation, resource) and resource requests with a token, by 1, 4 and 16 clients on one machine with the server; plain HTTP, sample evidence, every decision synced to disk',
  obstacle: () => undefined,
  run: async (context) => {
    const { home, kbs, pid } = await startLoadedKeyBroker();
    const figures: Figure[] = [];
    const ratios: Ratio[] = [];
    try {
      for (const mode of ['release', 'bearer'] as const) {
        for (const clients of clientCounts) {
          const ours: LoadRun[] = [];
          const peer: LoadRun[] = [];
          for (let run = 0; run < context.runs; run++) {
            ours.push(await runLoad(context, kbs.address, mode, clients, pid));
            if (context.peerKeyBroker !== undefined)
              peer.push(await runLoad(context, context.peerKeyBroker, mode, clients));
          }
          const what = `${modes[mode]}, ${clients} client${clients === 1 ? '' : 's'}`;
          const rate = figure(
            what,
            '1/s',
            ours.map(({ perSec }) => perSec),
          );
          figures.push(
            rate,
            figure(
              `${what}, median latency`,
              'ms',
              ours.map(({ p50ms }) => p50ms),
            ),
            figure(
              `${what}, 99th percentile`,
              'ms',
              ours.map(({ p99ms }) => p99ms),
            ),
            figure(
              `${what}, processor time of the server each`,
              'ms',
              ours.map(({ serverMsPerOp }) => serverMsPerOp ?? Number.NaN),
            ),
          );
          if (peer.length > 0) {
            const theirs = peer.map(({ perSec }) => perSec);
            const other = figure(`upstream, ${what}`, '1/s', theirs);
            figures.push(other);
            ratios.push(ratio(rate, other));
          }
        }
      }
    } finally {
      await home.remove();
    }
    const note = `no ratio: name an upstream key broker (plain HTTP, resource ${resource}) with --peer-key-broker URL`;
    return { figures, ratios, notes: context.peerKeyBroker === undefined ? [note] : [] };
  },
};
