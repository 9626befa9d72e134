#!/usr/bin/env node
import { readFile } from 'node:fs/promises';
import { performance } from 'node:perf_hooks';
import { createChannelIdentity } from '@sealpod/protocol/agent-channel';
import { guestMessages } from '@sealpod/protocol/status';
import { AgentChannel } from './boot/agent-channel.ts';
import { createConsoleLog, failureFields } from './boot/console-log.ts';
import { parseKernelSwitches, requireWoken } from './boot/kernel-command-line.ts';
import { prepareSystem } from './boot/system.ts';
import { agentPortName, openVirtioPort, servePort } from './boot/virtio-serial.ts';
import { createGuest } from './guest.ts';
import { readInitdataDisk } from './initdata/initdata-disk.ts';
import { version } from './version.ts';

/**
 * The only program that the pod VM's init starts. Order: the machine's mounts, initdata measured, policy compiled, then the
 * agent channel, then everything that the host need not wait for. Any failure before that ends the process, and with it the
 * machine: a guest that could not measure its configuration serves nothing.
 */
async function main(): Promise<void> {
  const woken = process.env['SEALPOD_WOKEN'];
  const wokenAt = Math.max(0, Number(woken ?? 0) * 1000) || 0;
  const log = createConsoleLog(undefined, wokenAt);
  const fail = (message: string) => (error: unknown) => {
    log('error', message, failureFields(error));
    process.exit(1);
  };
  process.on('uncaughtException', fail('unexpected failure'));
  process.on('unhandledRejection', fail('unexpected failure'));

  const elapsed = (): number => Math.round(performance.now());
  log('info', guestMessages.starting, { version, elapsed: elapsed() });
  // In a thread of its own while mounts are made.
  const identityMade = createChannelIdentity();
  await prepareSystem();
  log('info', 'system prepared', { elapsed: elapsed() });
  const switches = parseKernelSwitches(await readFile('/proc/cmdline', 'utf8'));
  requireWoken(switches, woken);
  const identity = await identityMade;
  const channelKeySha256 = identity.keySha256;
  const guest = await createGuest({ switches, version, log, readInitdata: () => readInitdataDisk(), channelKeySha256 });
  const channel = new AgentChannel(identity, (stream) => guest.server.serve(stream), log);
  const port = await openVirtioPort(agentPortName);
  servePort(port, (stream, firstByte) => channel.accept(stream, firstByte)).catch(fail('the agent channel failed'));
  log('info', guestMessages.serving, {
    version,
    initdata: guest.initdataDigest,
    elapsed: elapsed(),
  });
  await guest.startServices();
}

if (process.argv.includes('--version')) {
  process.stdout.write(`${version}\n`);
} else {
  // A read and a write of the agent channel each hold a thread of libuv's pool while the host is silent.
  process.env['UV_THREADPOOL_SIZE'] ??= '12';
  process.env['PATH'] ??= '/usr/sbin:/usr/bin:/sbin:/bin';
  await main();
}
