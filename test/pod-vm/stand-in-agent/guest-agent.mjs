// A guest for the tests of image and provider: it answers on the agent channel with what a measured machine knows of
// itself. It stands in for the guest agent only where the machine, not the agent, is under test.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, openSync, read, readdirSync, readFileSync, writeSync } from 'node:fs';

const portsDirectory = '/sys/class/virtio-ports';
const portName = 'sealpod.agent.0';

function findPort() {
  for (const port of readdirSync(portsDirectory)) {
    if (readFileSync(`${portsDirectory}/${port}/name`, 'utf8').trim() === portName) return `/dev/${port}`;
  }
  throw new Error(`no port ${portName}`);
}

function readPcrs() {
  return Array.from({ length: 24 }, (_, index) =>
    readFileSync(`/sys/class/tpm/tpm0/pcr-sha256/${index}`, 'utf8').trim().toLowerCase(),
  );
}

function interfaces() {
  const names = readdirSync('/sys/class/net');
  return Object.fromEntries(names.map((name) => [name, readFileSync(`/sys/class/net/${name}/address`, 'utf8').trim()]));
}

function report() {
  const securityFileSystem = '/sys/kernel/security';
  const log = `${securityFileSystem}/tpm0/binary_bios_measurements`;
  if (!existsSync(log)) {
    mkdirSync(securityFileSystem, { recursive: true });
    spawnSync('/usr/bin/mount', ['-t', 'securityfs', 'securityfs', securityFileSystem]);
  }
  return {
    pcrs: readPcrs(),
    eventLog: readFileSync(log).toString('base64'),
    commandLine: readFileSync('/proc/cmdline', 'utf8'),
    interfaces: interfaces(),
    initdataDisk: existsSync('/dev/vdb') ? readFileSync('/dev/vdb').subarray(0, 16).toString('latin1') : '',
    memory: readFileSync('/proc/meminfo', 'utf8').split('\n').slice(0, 3),
    uptime: readFileSync('/proc/uptime', 'utf8').trim(),
    release: readFileSync('/etc/os-release', 'utf8'),
    node: process.version,
  };
}

const answers = {
  report,
  echo: (request) => request.text,
  run: (request) => {
    const ended = spawnSync(request.program, request.args, { encoding: 'utf8' });
    return { status: ended.status, output: ended.stdout, error: ended.error?.code ?? ended.stderr };
  },
};

const channel = openSync(findPort(), 'r+');
const buffer = Buffer.alloc(65536);
let pending = '';

function serve() {
  read(channel, buffer, 0, buffer.length, null, (error, count) => {
    // The port reads as ended while no host is connected; there is no event to wait for, so ask again.
    if (error || count === 0) {
      setTimeout(serve, 20);
      return;
    }
    pending += buffer.toString('utf8', 0, count);
    for (let end = pending.indexOf('\n'); end >= 0; end = pending.indexOf('\n')) {
      const request = JSON.parse(pending.slice(0, end));
      pending = pending.slice(end + 1);
      let answer;
      try {
        answer = { result: answers[request.ask](request) };
      } catch (failure) {
        answer = { failure: String(failure) };
      }
      const bytes = Buffer.from(`${JSON.stringify(answer)}\n`);
      for (let sent = 0; sent < bytes.length; ) sent += writeSync(channel, bytes, sent);
    }
    serve();
  });
}

serve();
console.log(`stand-in agent ready ${readFileSync('/proc/uptime', 'utf8').trim()}`);
