import type { CreateContainerRequest } from '@sealpod/protocol/gen/kata/agent_pb';
import type { Spec } from '@sealpod/protocol/gen/kata/oci_pb';
import { invalidArgument } from './failures.ts';
import type { TerminalSize } from './guest-process.ts';

const terminalDefault: TerminalSize = { rows: 24, columns: 80 };

/** The spec of a request whose parts this agent supports. Throws INVALID_ARGUMENT. */
export function checkedSpec(request: CreateContainerRequest): Spec {
  const spec = request.OCI;
  if (spec === undefined) throw invalidArgument('the container has no specification');
  const hooks = spec.Hooks;
  const refused: readonly (readonly [boolean, string])[] = [
    [request.sharedMounts.length > 0, 'shared mounts'],
    [request.stringUser !== undefined, 'users by name'],
    [request.sandboxPidns, 'a process namespace shared by the pod'],
    [hooks !== undefined && hooks.Prestart.length + hooks.Poststart.length + hooks.Poststop.length > 0, 'hooks'],
    [(spec.Linux?.UIDMappings.length ?? 0) + (spec.Linux?.GIDMappings.length ?? 0) > 0, 'id mappings'],
  ];
  for (const [present, what] of refused) if (present) throw invalidArgument(`${what} are not supported`);
  return spec;
}

/** The size that a process's terminal begins with; undefined where it has none. */
export function terminalSize(process: {
  Terminal: boolean;
  ConsoleSize?: { Height: number; Width: number } | undefined;
}): TerminalSize | undefined {
  if (!process.Terminal) return undefined;
  const { Height = 0, Width = 0 } = process.ConsoleSize ?? {};
  return Height > 0 && Width > 0 ? { rows: Height, columns: Width } : terminalDefault;
}
