// A guest for the tests of volumes: the agent's own code for disks, encryption and mounts, in a real machine, with keys that
// the test gives in the place of a key broker. It answers JSON lines on the agent channel.
import { mkdirSync, readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import type { Duplex } from 'node:stream';
import { create } from '@bufbuild/protobuf';
import { asSealpodError } from '@sealpod/protocol/errors';
import { DeviceSchema, StorageSchema } from '@sealpod/protocol/gen/kata/agent_pb';
import { agentPortName, openVirtioPort, servePort } from '../../../guest-agent/boot/virtio-serial.ts';
import { runCommand } from '../../../guest-agent/pod/command.ts';
import { StorageTable } from '../../../guest-agent/pod/storage.ts';
import { PersistentVolumes } from '../../../guest-agent/pod/volumes/persistent-volumes.ts';

interface Request {
  readonly ask: string;
  readonly storage?: object;
  readonly device?: object;
  readonly key?: string;
  readonly path?: string;
  readonly text?: string;
}

const root = '/run/kata-containers';
let key = '';
const volumes = new PersistentVolumes({ run: runCommand, resource: async () => Buffer.from(key) });
const storages = new StorageTable(root, runCommand, volumes);

const answers: Readonly<Record<string, (request: Request) => Promise<unknown>>> = {
  mount: (request) => {
    key = request.key ?? '';
    return storages.attach(create(StorageSchema, request.storage ?? {}));
  },
  device: (request) => {
    key = request.key ?? '';
    return volumes.device(create(DeviceSchema, request.device ?? {}));
  },
  write: ({ path = '', text = '' }) => writeFile(path, text),
  read: async ({ path = '' }) => (await readFile(path)).subarray(0, 4096).toString('latin1'),
  close: () => storages.close(),
  disks: async () => readFileSync('/proc/partitions', 'utf8'),
};

async function answer(line: string): Promise<object> {
  try {
    const request = JSON.parse(line) as Request;
    return { result: (await answers[request.ask]?.(request)) ?? null };
  } catch (thrown) {
    const { code, message, cause } = asSealpodError(thrown);
    return { failure: `${code}: ${message} ${String(cause ?? '')}` };
  }
}

function serve(stream: Duplex): void {
  let pending = '';
  stream.on('data', (chunk: Buffer) => {
    pending += chunk.toString('utf8');
    const lines = pending.split('\n');
    pending = lines.pop() ?? '';
    for (const line of lines) void answer(line).then((said) => stream.write(`${JSON.stringify(said)}\n`));
  });
}

mkdirSync(`${root}/sandbox`, { recursive: true });
console.log(`volume agent ready ${readFileSync('/proc/uptime', 'utf8').trim()}`);
await servePort(await openVirtioPort(agentPortName), serve);
