import { benchImagePull, type ImagePullSample, missingBenchPrograms } from '@sealpod/guest-agent/image/bench';
import { type BenchCase, figure, ratio } from '../measure.ts';

export const imagePull: BenchCase = {
  name: 'image-pull',
  definition:
    'registry to root file system, 4 gzip layers of together 200 MB compressed and 400 MB unpacked, in memory: ours against skopeo copy and umoci unpack',
  obstacle: () => {
    const missing = missingBenchPrograms();
    return missing.length === 0 ? undefined : `not installed: ${missing.join(', ')}`;
  },
  run: async ({ runs }) => {
    const { plain, encrypted, skopeoAndUmoci } = await benchImagePull(runs);
    const wall = (name: string, samples: readonly ImagePullSample[]) =>
      figure(
        name,
        's',
        samples.map(({ wallSeconds }) => wallSeconds),
      );
    const processor = (name: string, samples: readonly ImagePullSample[]) =>
      figure(
        `${name}, processor time`,
        's',
        samples.map(({ cpuSeconds }) => cpuSeconds),
      );
    const peak = (name: string, samples: readonly ImagePullSample[]) =>
      figure(
        `${name}, largest memory`,
        'MiB',
        samples.map(({ peakMegabytes }) => (peakMegabytes * 1e6) / 2 ** 20),
      );
    const ours = [wall('ours, plain', plain), wall('ours, encrypted', encrypted)];
    const peer = wall('skopeo + umoci, plain', skopeoAndUmoci);
    return {
      figures: [
        ...[...ours, peer],
        processor('ours, plain', plain),
        processor('ours, encrypted', encrypted),
        processor('skopeo + umoci, plain', skopeoAndUmoci),
        peak('ours, encrypted', encrypted),
        peak('skopeo or umoci, the larger', skopeoAndUmoci),
      ],
      ratios: ours.map((one) => ratio(one, peer)),
      notes: ['skopeo has no decryption of its own and pulls the plain image: the encrypted ratio favours it'],
    };
  },
};
