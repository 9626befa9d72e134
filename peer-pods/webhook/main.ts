/**
 * The admission webhook: `node peer-pods/webhook/main.ts --config FILE`.
 *
 * With `--manifests --ca FILE (--url URL | --service NAMESPACE/NAME)` it prints the objects that make an API server ask it, as
 * a JSON list for `kubectl apply -f -`, and exits. Logs JSON lines to standard error.
 * Exit codes: 0 ended as asked, 1 failed, 2 wrong usage or configuration.
 *
 * @module
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { fixOf } from '@sealpod/protocol/reason-codes';
import { createLog } from '../adaptor/log.ts';
import { parseWebhookConfig } from './config.ts';
import { admissionManifests, type WebhookLocation } from './manifests.ts';
import { serveWebhook } from './server.ts';

const options = {
  config: { type: 'string' },
  manifests: { type: 'boolean', default: false },
  ca: { type: 'string' },
  url: { type: 'string' },
  service: { type: 'string' },
} as const;

function read(file: string | undefined, what: string): string {
  if (file === undefined) throw new SealpodError('USAGE', `--${what} is missing`, { expected: `--${what} FILE` });
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new SealpodError('USAGE', `${file} cannot be read`, { cause });
  }
}

function locationOf(url: string | undefined, service: string | undefined): WebhookLocation {
  if (url !== undefined) return { url };
  const [namespace, name] = (service ?? '').split('/');
  if (namespace && name) return { service: { namespace, name } };
  throw new SealpodError('USAGE', 'say where the webhook is', { expected: '--url URL or --service NAMESPACE/NAME' });
}

let log = createLog('info', 'webhook');
try {
  const { values } = parseArgs({ options, strict: true });
  const config = parseWebhookConfig(read(values.config, 'config'), values.config ?? '');
  if (values.manifests) {
    const items = admissionManifests(config, locationOf(values.url, values.service), read(values.ca, 'ca'));
    process.stdout.write(`${JSON.stringify({ apiVersion: 'v1', kind: 'List', items }, null, 2)}\n`);
  } else {
    log = createLog(config.logLevel, 'webhook');
    const server = await serveWebhook(config, log);
    log.info({ port: server.port, runtimeClasses: [...config.runtimeClasses.keys()] }, 'serving');
    const { promise: asked, resolve } = Promise.withResolvers<string>();
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve(signal));
    log.info({ signal: await asked }, 'ending');
    await server.close();
  }
} catch (thrown) {
  const isUsage = (thrown as NodeJS.ErrnoException).code?.startsWith('ERR_PARSE_ARGS');
  const error = asSealpodError(thrown, isUsage ? 'USAGE' : 'INTERNAL');
  log.error(
    { code: error.code, fix: fixOf(error), cause: error.cause === undefined ? undefined : String(error.cause) },
    error.message,
  );
  process.exitCode = error.code === 'USAGE' ? 2 : 1;
}
