import { execFile, execFileSync, fork } from 'node:child_process';
import { createCipheriv, createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { startRegistry } from '@sealpod/registry/testing';
import { createImageStore, type OverlayMounter } from './index.ts';
import { pushTestImage, tarOf } from './testing/test-image.ts';

const execute = promisify(execFile);

/** One pull. */
export interface ImagePullSample {
  readonly wallSeconds: number;
  readonly cpuSeconds: number;
  /** Largest resident set of the process; of the larger one where there are two. */
  readonly peakMegabytes: number;
}

/** The same image pulled in three ways, one sample a run. */
export interface ImagePullMeasurements {
  readonly plain: readonly ImagePullSample[];
  readonly encrypted: readonly ImagePullSample[];
  /** By `skopeo copy` and `umoci unpack`, plain. */
  readonly skopeoAndUmoci: readonly ImagePullSample[];
}

/** What a run in a process of its own is told. */
export interface PullJob {
  /** Repository; its tag is `1`. */
  readonly image: string;
  readonly host: string;
  /** Where to work; left empty. */
  readonly directory: string;
  /** The key of encrypted layers, in hexadecimal. */
  readonly key: string;
}

const keyId = 'kbs:///default/image-key/bench';
const layerCount = 4;
/** Half random and half zeros: compresses to half, 200 MB for 400 MB. */
const layerBytes = 100_000_000;

/**
 * Measures the pull of an image of 4 gzip layers, 200 MB compressed, from a registry on this machine to a root file
 * system in memory: ours plain and encrypted, each in a fresh process, and `skopeo copy` followed by `umoci unpack`, in
 * turn. A first round of each is not counted.
 *
 * @param runs how often each is measured
 */
export async function benchImagePull(runs = 3): Promise<ImagePullMeasurements> {
  const registry = await startRegistry();
  const scratch = await mkdtemp('/dev/shm/sealpod-bench-');
  try {
    const key = randomBytes(32);
    const layers = await Promise.all(Array.from({ length: layerCount }, (_, at) => benchLayer(at)));
    await pushTestImage(registry.host, 'plain', '1', layers);
    await pushTestImage(
      registry.host,
      'encrypted',
      '1',
      layers.map((layer) => ({ ...layer, key: { id: keyId, bytes: key } })),
    );
    const ours = (image: string) =>
      pullInOwnProcess({ image, host: registry.host, directory: scratch, key: key.toString('hex') });
    const plain: ImagePullSample[] = [];
    const encrypted: ImagePullSample[] = [];
    const peer: ImagePullSample[] = [];
    for (let run = 0; run <= runs; run++) {
      plain.push(await ours('plain'));
      encrypted.push(await ours('encrypted'));
      peer.push(await skopeoAndUmoci(registry.host, scratch));
    }
    return { plain: plain.slice(1), encrypted: encrypted.slice(1), skopeoAndUmoci: peer.slice(1) };
  } finally {
    await registry.stop();
    await rm(scratch, { recursive: true, force: true });
  }
}

/** Files of 64 KiB to 16 MiB, as a distribution's layers have them. */
async function benchLayer(seed: number): Promise<{ readonly archive: Buffer }> {
  const random = createCipheriv('aes-128-ctr', createHash('md5').update(`${seed}`).digest(), Buffer.alloc(16));
  const entries: { name: string; content: Buffer }[] = [];
  for (let total = 0, at = 0; total < layerBytes; at++) {
    const size = 65_536 << (at % 9);
    const content = Buffer.alloc(size);
    // Alternating runs let the compressor find what compresses.
    for (let start = 0; start < size; start += 8192) random.update(content.subarray(0, 4096)).copy(content, start);
    content.fill(0, 4096, 8192);
    entries.push({ name: `layer-${seed}/file-${at}`, content });
    total += size;
  }
  return { archive: await tarOf(entries) };
}

/** Pulls an image with the guest's image store in a fresh process, and says what that took. */
export async function pullInOwnProcess(job: PullJob): Promise<ImagePullSample> {
  const child = fork(import.meta.filename, [], { stdio: 'inherit' });
  const exited = once(child, 'exit');
  child.send(job);
  const [[answer]] = await Promise.all([once(child, 'message'), exited]);
  return answer as ImagePullSample;
}

async function pullInThisProcess({ image, host, directory, key }: PullJob): Promise<ImagePullSample> {
  const workDirectory = join(directory, 'work');
  const mounter: OverlayMounter = { mount: async () => undefined, unmount: async () => undefined };
  const store = createImageStore({
    workDirectory,
    imagePolicy: { text: '{"default":[{"type":"insecureAcceptAnything"}]}' },
    registries: [{ location: host, insecure: true }],
    getResource: async () => Buffer.from(key, 'hex'),
    mounter,
  });
  const before = process.cpuUsage();
  const start = performance.now();
  await store.pull(`${host}/${image}:1`, join(directory, 'bundle'));
  const wallSeconds = (performance.now() - start) / 1000;
  const cpu = process.cpuUsage(before);
  const sample = {
    wallSeconds,
    cpuSeconds: (cpu.user + cpu.system) / 1e6,
    peakMegabytes: peakResidentMegabytes(),
  };
  await rm(workDirectory, { recursive: true });
  return sample;
}

/** From the kernel's own record: `getrusage` counts what the parent had before this program was started. */
function peakResidentMegabytes(): number {
  const status = readFileSync('/proc/self/status', 'utf8');
  return Number(/^VmHWM:\s+([0-9]+) kB/m.exec(status)?.[1] ?? Number.NaN) / 1000;
}

async function skopeoAndUmoci(host: string, directory: string): Promise<ImagePullSample> {
  const scratch = join(directory, 'umoci');
  await mkdir(scratch);
  const layout = `${join(scratch, 'layout')}:1`;
  const start = performance.now();
  const copied = await timed([
    'skopeo',
    'copy',
    '--quiet',
    '--src-tls-verify=false',
    '--insecure-policy',
    `docker://${host}/plain:1`,
    `oci:${layout}`,
  ]);
  const unpacked = await timed(['umoci', 'unpack', '--image', layout, join(scratch, 'bundle')]);
  const wallSeconds = (performance.now() - start) / 1000;
  await rm(scratch, { recursive: true });
  return {
    wallSeconds,
    cpuSeconds: copied.cpuSeconds + unpacked.cpuSeconds,
    peakMegabytes: Math.max(copied.peakMegabytes, unpacked.peakMegabytes),
  };
}

/** Runs a program through a small Python wrapper, because Node does not tell what a child has used. */
async function timed(
  command: readonly string[],
): Promise<{ readonly cpuSeconds: number; readonly peakMegabytes: number }> {
  const script =
    'import resource,subprocess,sys\nsubprocess.run(sys.argv[1:],check=True,stdout=subprocess.DEVNULL)\n' +
    'u=resource.getrusage(resource.RUSAGE_CHILDREN)\nprint(u.ru_utime+u.ru_stime,u.ru_maxrss/1000)';
  const { stdout } = await execute('python3', ['-c', script, ...command]);
  const [cpuSeconds = Number.NaN, peakMegabytes = Number.NaN] = stdout.trim().split(' ').map(Number);
  return { cpuSeconds, peakMegabytes };
}

/** Which of the compared programs are missing. */
export function missingBenchPrograms(): string[] {
  return ['docker-registry', 'skopeo', 'umoci', 'python3'].filter((program) => {
    try {
      execFileSync('which', [program], { stdio: 'ignore' });
      return false;
    } catch {
      return true;
    }
  });
}

if (import.meta.main && process.send !== undefined) {
  process.once('message', (job: PullJob) => {
    pullInThisProcess(job).then((sample) => {
      process.send?.(sample);
      process.disconnect();
    });
  });
}
