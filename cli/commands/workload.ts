import { writeFileSync } from 'node:fs';
import { SealpodError } from '@sealpod/protocol/errors';
import { readContainers, registryImages, type Transformed, transformManifests } from '@sealpod/workload';
import type { Command } from 'commander';
import { readText } from './context.ts';
import { authFileOption } from './registry-options.ts';

/** Options that `policy generate` and `transform` share. */
export interface WorkloadOptions {
  readonly config: readonly string[];
  readonly namespace?: string;
  readonly runtimeClass: readonly string[];
  readonly initdata?: string;
  readonly guestKbsUrl?: string;
  readonly guestKbsCertificate?: string;
  readonly plainHttpRegistry: readonly string[];
  readonly authFile?: string;
  readonly allowExec?: boolean;
  readonly allowCommand: readonly string[];
  readonly logs: boolean;
  readonly ephemeralContainers?: string;
  readonly podSecurity?: string;
  readonly digests?: string;
}

/** Adds them to a command. */
export function addWorkloadOptions(command: Command): Command {
  return command
    .option('--config <file...>', 'manifests of ConfigMaps and Secrets that the input refers to', [])
    .option('--namespace <name>', 'namespace of pods whose manifest names none')
    .option('--runtime-class <name...>', 'RuntimeClasses of pods in machines of their own', ['sealpod', 'sealpod-peer'])
    .option('--initdata <file>', 'initdata document (TOML) to begin with')
    .option('--guest-kbs-url <url>', 'key broker, as the guest reaches it')
    .option('--guest-kbs-certificate <file>', 'PEM certificate whose key the guest pins')
    .option('--plain-http-registry <host:port...>', 'registries spoken to without TLS, here and in the guest', [])
    .option(...authFileOption)
    .option('--allow-exec', 'let the host run any command in the containers')
    .option('--allow-command <container=JSON...>', 'a further command, e.g. web=["ls","/"]', [])
    .option('--ephemeral-containers <file>', 'containers that may be added to a running pod: a YAML list, as in a pod')
    .option('--no-logs', 'keep what containers write from the host')
    .option('--pod-security <level>', 'restricted: hold to that Pod Security Standard, here and in the guest')
    .option('--digests <file>', 'write workload, initdata digest and images as JSON');
}

/**
 * Generates and reports: what a policy does not compare goes to standard error, digests to the file that was asked for.
 *
 * @throws SealpodError as `transformManifests`; USAGE for a malformed option
 */
export async function transformWith(text: string, options: WorkloadOptions): Promise<Transformed> {
  const { guestKbsUrl: url, guestKbsCertificate: certificate } = options;
  const plainHttpRegistries = options.plainHttpRegistry;
  const transformed = await transformManifests(text, {
    runtimeClasses: options.runtimeClass,
    namespace: options.namespace,
    configuration: options.config.map(readText),
    images: registryImages({
      plainHttpRegistries,
      ...(options.authFile === undefined ? {} : { authFile: options.authFile }),
    }),
    base: options.initdata === undefined ? undefined : readText(options.initdata),
    kbs:
      url === undefined
        ? undefined
        : { url, ...(certificate === undefined ? {} : { certificatePem: readText(certificate) }) },
    plainHttpRegistries,
    allowExec: options.allowExec === true,
    commands: commandsOf(options.allowCommand),
    allowLogs: options.logs,
    ephemeralContainers:
      options.ephemeralContainers === undefined ? [] : readContainers(readText(options.ephemeralContainers)),
    podSecurity: podSecurityOf(options.podSecurity),
  });
  for (const { workload, notes } of transformed.workloads) {
    for (const note of notes) process.stderr.write(`note: ${workload}: ${note}\n`);
  }
  if (options.digests !== undefined) {
    const report = transformed.workloads.map(({ workload, initdataDigest, images }) => ({
      workload,
      initdataDigest,
      images,
    }));
    writeFileSync(options.digests, `${JSON.stringify(report, null, 2)}\n`);
  }
  return transformed;
}

function podSecurityOf(text: string | undefined): 'restricted' | undefined {
  if (text === undefined || text === 'restricted') return text;
  throw new SealpodError('USAGE', 'unknown Pod Security Standard', { expected: 'restricted', actual: text });
}

function commandsOf(texts: readonly string[]): Record<string, string[][]> {
  const commands: Record<string, string[][]> = {};
  for (const text of texts) {
    const at = text.indexOf('=');
    const line = at < 1 ? undefined : parseCommand(text.slice(at + 1));
    if (line === undefined) {
      throw new SealpodError('USAGE', 'not a command of a container', {
        expected: 'container=["program","argument"]',
        actual: text,
      });
    }
    const name = text.slice(0, at);
    commands[name] = [...(commands[name] ?? []), line];
  }
  return commands;
}

function parseCommand(text: string): string[] | undefined {
  try {
    const parsed: unknown = JSON.parse(text);
    const isLine = Array.isArray(parsed) && parsed.length > 0 && parsed.every((item) => typeof item === 'string');
    return isLine ? (parsed as string[]) : undefined;
  } catch {
    return undefined;
  }
}
