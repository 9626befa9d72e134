import { execFileSync } from 'node:child_process';
import { existsSync, globSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { identityOf, runningProcesses } from '@sealpod/processes';
import { shimSocketDirectory, shimTraces } from '@sealpod/runtimeclass/shim/traces';

/** The folders that belong to one environment and to nothing else on the machine. */
export interface Territory {
  readonly home: string;
  readonly runDirectory: string;
}

/**
 * What of an environment is left on the machine, by name: processes, mounts (pods' network namespaces among them), links,
 * control groups, packet filter rules, shim sockets, CNI results, temporary files. Empty where all is gone.
 */
export function residueOf(territory: Territory): string[] {
  const { runDirectory } = territory;
  return [
    ...processes(territory),
    ...mounts(territory),
    ...links(territory),
    ...controlGroups(territory),
    ...packetFilterRules(territory),
    ...shimTraces(runDirectory).map((path) => `shim trace ${path}`),
    ...shimSockets(territory),
    ...podFiles(territory, '/var/lib/cni/results', 'CNI result'),
    ...podFiles(territory, '/run/netns', 'network namespace'),
    ...podFiles(territory, '/run/containerd/runc/k8s.io', 'container of runc'),
    ...temporaryFiles(territory),
    ...(existsSync(runDirectory) ? [`directory ${runDirectory}`] : []),
  ];
}

/** Names of the host's ends of the pods' network, to be asked for after the bridge is gone. */
export function podLinks({ runDirectory }: Territory): string[] {
  const links = JSON.parse(execFileSync('ip', ['-j', 'link', 'show'], { encoding: 'utf8' })) as readonly {
    readonly ifname: string;
    readonly master?: string;
  }[];
  return links.filter(({ master }) => master === bridgeOf(runDirectory)).map(({ ifname }) => ifname);
}

/** Whether a link of this name exists. */
export function linkExists(name: string): boolean {
  return existsSync(join('/sys/class/net', name));
}

const bridgeOf = (runDirectory: string): string => `spd-${basename(runDirectory)}`;

function processes({ home, runDirectory }: Territory): string[] {
  return runningProcesses()
    .filter((running) => running.arguments.some((word) => word.includes(home) || word.includes(runDirectory)))
    .map((running) => `process ${running.pid}: ${running.arguments.join(' ').slice(0, 200)}`);
}

function mounts({ home, runDirectory }: Territory): string[] {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .filter((line) => line.includes(home) || line.includes(runDirectory))
    .map((line) => `mount ${line}`);
}

function links({ runDirectory }: Territory): string[] {
  return execFileSync('ip', ['-o', 'link', 'show'], { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line.includes(bridgeOf(runDirectory)))
    .map((line) => `link ${line}`);
}

/** Identifiers of pods and containers, from the logs of this environment's parts. */
function podIdentifiers({ home }: Territory): Set<string> {
  const texts = globSync(join(home, 'logs', '*.log')).map((file) => readFileSync(file, 'utf8'));
  return new Set(texts.flatMap((text) => text.match(/\b[0-9a-f]{64}\b/g) ?? []));
}

function controlGroups(territory: Territory): string[] {
  const known = podIdentifiers(territory);
  return globSync('/sys/fs/cgroup/{*,*/*,*/*/*,*/*/*/*}/')
    .filter((path) => known.has(basename(path)))
    .map((path) => `control group ${path}`);
}

function podFiles(territory: Territory, directory: string, kind: string): string[] {
  if (!existsSync(directory)) return [];
  const tag = `sealpod-${basename(territory.runDirectory)}-`;
  const known = podIdentifiers(territory);
  return readdirSync(directory)
    .filter((name) => name.startsWith(tag) || (name.match(/[0-9a-f]{64}/g) ?? []).some((id) => known.has(id)))
    .map((name) => `${kind} ${name}`);
}

/** Sockets without a state file beside them: whose the others are, their state says, and logs may name a neighbour's. */
function shimSockets(territory: Territory): string[] {
  return podFiles(territory, shimSocketDirectory, 'shim socket').filter(
    (found) => !found.endsWith('.json') && !existsSync(join(shimSocketDirectory, `${found.split(' ').at(-1)}.json`)),
  );
}

function packetFilterRules({ home, runDirectory }: Territory): string[] {
  const state = join(home, 'state.json');
  const subnet = existsSync(state) ? (JSON.parse(readFileSync(state, 'utf8')) as { subnet: string }).subnet : 'none';
  const marks = [bridgeOf(runDirectory), subnet, subnet.replace(/0\/24$/, '')];
  return execFileSync('iptables-save', { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line.startsWith('-A') && marks.some((mark) => line.includes(mark)))
    .map((line) => `packet filter rule ${line}`);
}

/** Temporary folders carry the number of the process that made them; those of a living one are its own affair. */
function temporaryFiles({ home }: Territory): string[] {
  const work = /^(sealpod-(?:calibration|measure)|build|alter)-(\d+)-/;
  const places = [tmpdir(), ...globSync(join(home, 'pod-vm-images/*/'))];
  return places
    .flatMap((place) => readdirSync(place).map((name) => join(place, name)))
    .filter((path) => {
      const maker = work.exec(basename(path))?.[2];
      return maker !== undefined && identityOf(Number(maker)) === undefined;
    })
    .map((path) => `temporary folder ${path}`);
}
