import { setTimeout as delay } from 'node:timers/promises';
import { expect, test, vi } from 'vitest';
import { ClusterForTests } from '../cluster-for-tests.ts';
import { LeaderElection } from './leader-election.ts';

const log = { info: () => undefined, warn: () => undefined, error: () => undefined };
const lease = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', namespace: 'n', name: 'l' };

function candidate(cluster: ClusterForTests, identity: string, events: string[]) {
  const abort = new AbortController();
  const election = new LeaderElection(cluster, { namespace: 'n', name: 'l', identity, leaseSeconds: 0.2, log });
  const ended = election.run(abort.signal, async (leading) => {
    events.push(`${identity} leads`);
    await new Promise<void>((resolve) => leading.addEventListener('abort', () => resolve(), { once: true }));
    events.push(`${identity} ends`);
  });
  return { abort, ended };
}

test('one leads at a time; another follows at once where the Lease is given back', async () => {
  const [cluster, events]: [ClusterForTests, string[]] = [new ClusterForTests(), []];
  const one = candidate(cluster, 'one', events);
  await vi.waitFor(() => expect(events).toEqual(['one leads']));
  const other = candidate(cluster, 'other', events);
  await delay(600);
  expect(events).toEqual(['one leads']);
  one.abort.abort();
  await one.ended;
  await vi.waitFor(() => expect(events).toEqual(['one leads', 'one ends', 'other leads']));
  other.abort.abort();
  await other.ended;
  expect((await cluster.get(lease))?.['spec']).not.toHaveProperty('holderIdentity');
});

test('another follows when the holder is gone without a word', async () => {
  const [cluster, events]: [ClusterForTests, string[]] = [new ClusterForTests(), []];
  cluster.put({ ...lease, metadata: lease, spec: { holderIdentity: 'dead', leaseDurationSeconds: 0.3 } });
  const started = performance.now();
  const other = candidate(cluster, 'other', events);
  await vi.waitFor(() => expect(events).toEqual(['other leads']), { timeout: 5000 });
  expect(performance.now() - started).toBeGreaterThan(250);
  other.abort.abort();
  await other.ended;
});

test('who loses the Lease stops', async () => {
  const [cluster, events]: [ClusterForTests, string[]] = [new ClusterForTests(), []];
  const one = candidate(cluster, 'one', events);
  await vi.waitFor(() => expect(events).toEqual(['one leads']));
  const thief = setInterval(() => {
    cluster.put({ ...lease, metadata: lease, spec: { holderIdentity: 'thief', leaseDurationSeconds: 60 } });
  }, 10);
  await vi.waitFor(() => expect(events).toEqual(['one leads', 'one ends']), { timeout: 5000 });
  clearInterval(thief);
  one.abort.abort();
  await one.ended;
});
