#!/usr/bin/env node
import { parseArgs } from 'node:util';
import { asSealpodError } from '@sealpod/protocol/errors';
import { fixOf } from '@sealpod/protocol/reason-codes';
import { createKbs, loadKbsConfig } from './kbs.ts';

const usage = 'usage: node kbs/main.ts --config FILE';

/** Starts the key broker of a configuration file; one line of JSON on stdout says when and where it listens. */
async function main(): Promise<void> {
  const { values } = parseArgs({ options: { config: { type: 'string' }, help: { type: 'boolean' } } });
  if (values.help === true) {
    console.log(`${usage}\n\nThe members of the configuration are described in kbs/config.ts.`);
    return;
  }
  if (values.config === undefined) throw new TypeError(usage);
  const kbs = await createKbs(loadKbsConfig(values.config));
  let closing = false;
  const close = () => {
    if (closing) return;
    closing = true;
    kbs.close().then(
      () => process.exit(0),
      (thrown: unknown) => fail(thrown),
    );
  };
  process.on('SIGTERM', close);
  process.on('SIGINT', close);
  process.on('SIGHUP', () => {
    kbs
      .reloadTls()
      .catch((thrown: unknown) => console.error(JSON.stringify({ failed: 'reload', ...described(thrown) })));
  });
  const { address, certificatePath } = kbs;
  console.log(
    JSON.stringify({ listening: address, ...(certificatePath === undefined ? {} : { certificate: certificatePath }) }),
  );
}

function described(thrown: unknown): Record<string, unknown> {
  const error = asSealpodError(thrown, 'USAGE');
  const { code, message, detail, cause } = error;
  return { code, message, ...detail, fix: fixOf(error), ...(cause instanceof Error ? { cause: cause.message } : {}) };
}

function fail(thrown: unknown): void {
  console.error(JSON.stringify({ failed: 'kbs', ...described(thrown) }));
  process.exit(1);
}

main().catch(fail);
