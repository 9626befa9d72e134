import {
  create,
  type DescMessage,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import { SealpodError } from '@sealpod/protocol/errors';
import { AgentService } from '@sealpod/protocol/gen/kata/agent_pb';
import { Health, HealthCheckResponse_ServingStatus } from '@sealpod/protocol/gen/kata/health_pb';
import { Status, TtrpcError } from '@sealpod/protocol/ttrpc';
import type { GuestChannel } from '../agent-proxy/guest-channel.ts';
import { guestNetworkRequests } from '../network/guest-requests.ts';
import type { PodNetwork } from '../network/inspect.ts';
import { readEnd } from '../providers/machine-file.ts';
import type { Instance, Provider } from '../providers/provider.ts';

const checkTimeoutMs = 10_000;
const requestTimeoutMs = 30_000;
const betweenChecksMs = 100;
/** How much of the console's end a failure reads, and how much of that it quotes. */
const consoleBytes = 16_384;
const quotedCharacters = 2048;
/** What a kernel prints of its own state when it ends: it would push out the reason, which stands before it. */
const kernelState =
  /^\[\s*[\d.]+\] (?:\s|Call Trace|CPU: |Hardware name|RIP: |Code: |R[A-Z0-9]{2}: |RSP: |[A-Z]S: |Kernel Offset)/;

/** Asks the guest one thing. Throws TtrpcError. */
export async function ask<I extends DescMessage, O extends DescMessage>(
  guest: GuestChannel,
  method: DescMethodUnary<I, O>,
  request: MessageInitShape<I>,
  options: { timeoutMs: number; signal: AbortSignal },
): Promise<MessageShape<O>> {
  const payload = toBinary(method.input, create(method.input, request));
  return fromBinary(method.output, await guest.call(method.parent.typeName, method.name, payload, options));
}

/**
 * Waits until the guest agent serves. Gives up when `signal` is aborted or the machine is gone.
 * Throws AGENT_UNREACHABLE with how far the guest came and the end of its console.
 */
export async function waitForAgent(
  guest: GuestChannel,
  instance: Instance,
  provider: Provider,
  signal: AbortSignal,
): Promise<void> {
  let stage = 'the machine runs, its agent channel could not be connected';
  for (;;) {
    let cause: unknown;
    try {
      const { status } = await ask(guest, Health.method.check, {}, { timeoutMs: checkTimeoutMs, signal });
      if (status === HealthCheckResponse_ServingStatus.SERVING) return;
      stage = 'the guest agent answers, but does not serve yet';
    } catch (error) {
      cause = error;
      stage = stageOf(error, stage);
    }
    const gone = (await provider.findInstance(instance)) === undefined;
    if (gone) stage = `the machine has ended; before, ${stage}`;
    if (gone || signal.aborted) throw await unreachable(instance, stage, signal.aborted ? signal.reason : cause);
    await pause(signal);
  }
}

/** Gives the guest the pod's addresses, routes and neighbours. Throws NETWORK or AGENT_POLICY_DENY with what the guest said. */
export async function configureGuestNetwork(
  guest: GuestChannel,
  network: PodNetwork,
  signal: AbortSignal,
): Promise<void> {
  const { updateInterface, updateRoutes, addNeighbours } = guestNetworkRequests(network);
  const options = { timeoutMs: requestTimeoutMs, signal };
  const methods = AgentService.method;
  let step = 'UpdateInterface';
  try {
    await ask(guest, methods.updateInterface, updateInterface, options);
    step = 'AddARPNeighbors';
    if (network.neighbours.length > 0) await ask(guest, methods.addARPNeighbors, addNeighbours, options);
    step = 'UpdateRoutes';
    await ask(guest, methods.updateRoutes, updateRoutes, options);
  } catch (cause) {
    signal.throwIfAborted();
    const said = cause instanceof Error ? cause.message : String(cause);
    const denied = cause instanceof TtrpcError && cause.status === Status.permissionDenied;
    throw new SealpodError(denied ? 'AGENT_POLICY_DENY' : 'NETWORK', `the guest refused ${step}: ${said}`, { cause });
  }
}

function stageOf(error: unknown, before: string): string {
  if (!(error instanceof TtrpcError)) throw error;
  if (error.status === Status.deadlineExceeded) return 'the agent channel is connected, Health.Check is not answered';
  if (error.status === Status.unavailable || error.status === Status.cancelled) return before;
  return `the guest agent answers Health.Check with status ${error.status}: ${error.message}`;
}

async function unreachable({ name, consoleLogPath }: Instance, stage: string, cause: unknown): Promise<SealpodError> {
  const console = consoleLogPath ? await endOf(consoleLogPath) : '';
  const quoted = console ? `; its console ends with:\n${console}` : '; its console is empty';
  return new SealpodError('AGENT_UNREACHABLE', `the agent in ${name} did not answer: ${stage}${quoted}`, {
    expected: 'Health.Check answers SERVING',
    actual: stage,
    cause,
  });
}

/** The last lines of a console, without its control sequences. */
export async function endOf(path: string): Promise<string> {
  try {
    const end = await readEnd(path, consoleBytes);
    const escapes = new RegExp(`${String.fromCharCode(27)}\\[[0-9;?]*[a-zA-Z]`, 'g');
    return end
      .toString('latin1')
      .replace(escapes, '')
      .replace(/[^\x20-\x7e\n]/g, '')
      .split('\n')
      .filter((line) => !kernelState.test(line))
      .join('\n')
      .slice(-quotedCharacters)
      .trim();
  } catch (error) {
    return `(${path} cannot be read: ${error instanceof Error ? error.message : String(error)})`;
  }
}

async function pause(signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, betweenChecksMs);
  signal.addEventListener('abort', () => resolve(), { once: true });
  await promise;
  clearTimeout(timer);
}
