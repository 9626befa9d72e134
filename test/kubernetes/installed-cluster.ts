import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { layoutOf } from '@sealpod/cli/layout';
import { type Daemon, stopDaemon } from '@sealpod/processes';
import { ownerKeyFile, startKbs } from '../../cli/development/kbs.ts';
import { freePort } from '../../cli/development/network.ts';
import { developmentCluster, kindCluster, sealpod } from './machine-cluster.ts';

let end: (() => Promise<void>) | undefined;
const clusters = { installed: developmentCluster, kind: kindCluster } as const;

/**
 * Vitest's global set-up. Where `SEALPOD_TEST_CLUSTER` says so, the tests on Kubernetes find one cluster given, on which sealpod was
 * installed from its images as users do it: `installed`, the development cluster, or `kind`, one that kind makes. The key
 * broker runs on this machine, and knows the software TPMs of the node.
 */
export async function setup(): Promise<void> {
  const wanted = process.env['SEALPOD_TEST_CLUSTER'] ?? '';
  if (wanted === '' || process.env['SEALPOD_LONG_TESTS'] !== '1') return;
  if (!Object.hasOwn(clusters, wanted))
    throw new Error(`SEALPOD_TEST_CLUSTER is ${wanted}; it may be ${Object.keys(clusters).join(' or ')}`);
  const home = mkdtempSync(join(tmpdir(), 'sealpod-e2e-'));
  const layout = layoutOf(home);
  const cluster = await clusters[wanted as keyof typeof clusters](home);
  let keyBroker: Daemon | undefined;
  end = async (): Promise<void> => {
    try {
      await sealpod(home, 'uninstall', '--kubeconfig', cluster.kubeconfig, '--purge');
    } finally {
      if (keyBroker !== undefined) await stopDaemon(keyBroker);
      await cluster.stop();
      rmSync(home, { recursive: true, force: true });
    }
  };
  try {
    process.env['PATH'] = [...cluster.programs, process.env['PATH'] ?? ''].join(delimiter);
    const images = `${cluster.registry}/release`;
    await sealpod(home, 'release', 'images', '--push', images, '--plain-http');
    const fewest = ['--set', 'controller.replicas=1', '--set', 'runtime.webhook.replicas=1'];
    const target = ['--kubeconfig', cluster.kubeconfig];
    await sealpod(home, 'install', ...target, '--images', images, '--plain-http', ...cluster.installOptions, ...fewest);

    const roots = JSON.parse(await sealpod(home, '-o', 'json', 'podvm', 'tpm-roots', ...target)) as {
      certificates: string;
    }[];
    const certificateFiles = [join(home, 'tpm-roots.pem')];
    writeFileSync(certificateFiles[0] ?? '', roots.map(({ certificates }) => certificates).join(''));
    const port = await freePort(cluster.address);
    const root = { name: 'nodes', certificateFiles };
    const { daemon, url, certificateFile } = await startKbs(layout, cluster.address, port, root);
    keyBroker = daemon;
    const asOwner = (...words: readonly string[]) =>
      sealpod(
        home,
        '--kbs-url',
        url,
        '--kbs-certificate',
        certificateFile,
        '--admin-key',
        ownerKeyFile(layout),
        ...words,
      );
    await sealpod(home, 'podvm', 'measure');
    await asOwner('refvalue', 'put', '--file', join(home, 'pod-vm-images/default/reference-values.json'));
    const policy = join(home, 'simulated.rego');
    writeFileSync(policy, await asOwner('policy', 'get', 'attestation', 'simulated-tpm_cpu'));
    await asOwner('policy', 'put', 'attestation', 'default_cpu', '--file', policy);
    Object.assign(process.env, {
      SEALPOD_TEST_KUBECONFIG: cluster.kubeconfig,
      SEALPOD_TEST_REGISTRY: cluster.registry,
      SEALPOD_TEST_KBS_URL: url,
      SEALPOD_TEST_KBS_CERTIFICATE: certificateFile,
      SEALPOD_TEST_OWNER_KEY: ownerKeyFile(layout),
    });
  } catch (thrown) {
    await teardown();
    throw thrown;
  }
}

/** Ends what `setup` started. */
export async function teardown(): Promise<void> {
  await end?.();
  end = undefined;
}
