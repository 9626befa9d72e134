import { SealpodError } from '@sealpod/protocol/errors';
import type { Cluster } from './cluster.ts';
import { healthPort, messageOf, podsOf } from './node-agents.ts';

/** An authority of TPMs as the key broker's configuration and a TrustService name it. */
export interface TpmRoot {
  readonly name: string;
  /** PEM. */
  readonly certificates: string;
  readonly simulated: boolean;
}

const longestName = 63;
const onlyCertificates =
  /^(?:-----BEGIN CERTIFICATE-----\r?\n(?:[A-Za-z0-9+/=]+\r?\n)+-----END CERTIFICATE-----\r?\n?){1,4}$/;

/**
 * The authorities of the software TPMs of a cluster's nodes, as their node agents tell them by way of the API server: whoever
 * administers the cluster can put others in their place. They are simulations, and marked so.
 *
 * @throws SealpodError NOT_FOUND where no node agent runs, CLUSTER where one does not tell
 */
export async function tpmRootsOf({ core }: Pick<Cluster, 'core'>): Promise<readonly TpmRoot[]> {
  const { items } = await core.listPodForAllNamespaces({ labelSelector: podsOf('node-agent') });
  if (items.length === 0)
    throw new SealpodError('NOT_FOUND', 'no node agent runs', { fix: 'install sealpod with `sealpod install`' });
  return Promise.all(
    items.map(async ({ metadata, spec }) => {
      const { name = '', namespace = '' } = metadata ?? {};
      const node = spec?.nodeName ?? '';
      const path = 'tpm-authority';
      const pod = { namespace, name: `${name}:${healthPort}`, path };
      const certificates = await core.connectGetNamespacedPodProxyWithPath(pod).catch((cause: unknown) => {
        throw new SealpodError('CLUSTER', `the node agent of ${node} tells no authority: ${messageOf(cause)}`, {
          cause,
          fix: '`sealpod doctor --cluster` says whether it serves',
        });
      });
      if (!onlyCertificates.test(certificates))
        throw new SealpodError('CLUSTER', `what the node agent of ${node} tells is no list of certificates`, {
          expected: 'one to four certificates, PEM',
          actual: certificates.slice(0, 80),
        });
      return { name: node.slice(0, longestName), certificates, simulated: true };
    }),
  );
}
