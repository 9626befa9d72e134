import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import {
  CommitSnapshotRequestSchema,
  Kind,
  ListSnapshotsRequestSchema,
  PrepareSnapshotRequestSchema,
  UpdateSnapshotRequestSchema,
} from '@sealpod/protocol/gen/containerd/snapshots_pb';
import { Status, type TtrpcError } from '@sealpod/protocol/ttrpc';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { readMetrics } from '../node-agent/events/status-client.ts';
import { serveSnapshotter } from './server.ts';
import { SnapshotService } from './service.ts';
import { referenceLabel } from './store.ts';

let root: string;
let service: SnapshotService;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'sealpod-snapshots-'));
  service = new SnapshotService(root);
});
afterEach(() => {
  service.close();
  rmSync(root, { recursive: true, force: true });
});

const request = (key: string, parent = '', labels: Record<string, string> = {}) =>
  create(PrepareSnapshotRequestSchema, { key, parent, labels });
const status = (run: () => unknown): number => {
  try {
    run();
    return Status.ok;
  } catch (thrown) {
    return (thrown as TtrpcError).status;
  }
};
// The requests that name a snapshot differ in their type only.
const target = (name: string) => ({ snapshotter: '', key: name }) as never;
const names = (...filters: string[]) =>
  [...service.list(create(ListSnapshotsRequestSchema, { filters }))].flatMap(({ info }) =>
    info.map(({ name }) => name),
  );
const layer = (chain: string, parent = '') =>
  status(() => service.prepare(request(`extract ${chain}`, parent, { [referenceLabel]: chain })));

test('a layer exists already, is committed under its chain id, and carries the label containerd looks for', () => {
  expect(layer('sha256:a')).toBe(Status.alreadyExists);
  expect(layer('sha256:b', 'sha256:a')).toBe(Status.alreadyExists);
  const { info } = service.stat(target('sha256:b'));
  expect(info).toMatchObject({ kind: Kind.COMMITTED, parent: 'sha256:a', labels: { [referenceLabel]: 'sha256:b' } });
  expect(names(`labels."${referenceLabel}"==sha256:b,parent=="sha256:a"`)).toEqual(['sha256:b']);
});

test('the same layer from two namespaces is one snapshot; over another parent it is another', () => {
  layer('sha256:a');
  layer('sha256:b');
  expect([layer('sha256:c', 'sha256:a'), layer('sha256:c', 'sha256:a'), layer('sha256:c', 'sha256:b')]).toEqual(
    Array(3).fill(Status.alreadyExists),
  );
  expect(names(`labels."${referenceLabel}"==sha256:c`).length).toBe(2);
});

test('a layer over a parent that is not there is refused and not recorded', () => {
  expect(layer('sha256:b', 'sha256:missing')).toBe(Status.notFound);
  expect(names()).toEqual([]);
});

test('the root of a container is one empty read-only directory, whatever its image', () => {
  layer('sha256:a');
  const { mounts } = service.prepare(request('container', 'sha256:a'));
  expect(mounts).toMatchObject([{ type: 'bind', options: ['rbind', 'ro'] }]);
  expect(readdirSync(mounts[0]?.source ?? '')).toEqual([]);
  expect(service.mounts(target('container')).mounts).toEqual(mounts);
  expect(status(() => service.mounts(target('sha256:a')))).toBe(Status.failedPrecondition);
  expect(service.usage(target('container'))).toMatchObject({ size: 0n, inodes: 0n });
});

test('a layer that containerd unpacks although it need not goes into a directory that the commit removes', () => {
  const key = 'k8s.io/7/extract-123-abc sha256:a';
  const [mount] = service.prepare(request(key)).mounts;
  expect(mount).toMatchObject({ type: 'bind', options: ['rbind', 'rw'] });
  expect(service.mounts(target(key)).mounts[0]).toEqual(mount);
  const directory = mount?.source ?? '';
  writeFileSync(join(directory, 'pause'), 'unpacked');

  service.close();
  service = new SnapshotService(root);
  expect(readdirSync(directory)).toEqual(['pause']);

  service.commit(create(CommitSnapshotRequestSchema, { name: 'k8s.io/8/sha256:a', key }));
  expect(existsSync(directory)).toBe(false);
  expect(service.stat(target('k8s.io/8/sha256:a')).info?.kind).toBe(Kind.COMMITTED);
  const { mounts } = service.prepare(request('k8s.io/9/container', 'k8s.io/8/sha256:a'));
  expect(mounts).toMatchObject([{ options: ['rbind', 'ro'] }]);
  expect(readdirSync(mounts[0]?.source ?? '')).toEqual([]);
});

test('what was unpacked goes with its snapshot, and after a crash between the two', () => {
  const [first, second] = ['extract-1-a sha256:a', 'extract-2-b sha256:b'];
  const source = (key: string): string => service.prepare(request(key)).mounts[0]?.source ?? '';
  const [removed, orphan] = [source(first), source(second)];
  service.remove(target(first));
  expect([existsSync(removed), existsSync(orphan)]).toEqual([false, true]);
  service.remove(target(second));
  mkdirSync(orphan);
  service.close();
  service = new SnapshotService(root);
  expect(existsSync(orphan)).toBe(false);
});

test("containerd's rules: unique names, committed parents, children before parents", () => {
  layer('sha256:a');
  service.prepare(request('one', 'sha256:a'));
  expect(status(() => service.prepare(request('one', 'sha256:a')))).toBe(Status.alreadyExists);
  expect(status(() => service.prepare(request('two', 'one')))).toBe(Status.invalidArgument);
  expect(status(() => service.remove(target('sha256:a')))).toBe(Status.failedPrecondition);
  service.commit(create(CommitSnapshotRequestSchema, { name: 'done', key: 'one' }));
  expect(service.stat(target('done')).info?.kind).toBe(Kind.COMMITTED);
  service.remove(target('done'));
  service.remove(target('sha256:a'));
  expect(status(() => service.stat(target('sha256:a')))).toBe(Status.notFound);
  expect(names()).toEqual([]);
});

test('labels: those the mask names, or all', () => {
  service.prepare(request('one', '', { keep: 'k', gone: 'g' }));
  const update = (labels: Record<string, string>, paths: string[]) =>
    service.update(create(UpdateSnapshotRequestSchema, { info: { name: 'one', labels }, updateMask: { paths } })).info
      ?.labels;
  expect(update({ added: 'a' }, ['labels.added', 'labels.gone'])).toEqual({ keep: 'k', added: 'a' });
  expect(update({ only: 'o' }, ['labels'])).toEqual({ only: 'o' });
  expect(status(() => update({}, ['parent']))).toBe(Status.invalidArgument);
});

test('filters match what they say and nothing else; one that is not understood is refused', () => {
  layer('sha256:a');
  service.prepare(request('x', 'sha256:a', { team: 'red' }));
  expect(names('kind==active')).toEqual(['x']);
  expect(names('labels.team==red')).toEqual(['x']);
  expect(names('labels.team')).toEqual(['x']);
  expect(names('kind==view', 'name==x')).toEqual(['x']);
  expect(names('kind!=active,parent==""')).toEqual(['sha256:a']);
  for (const filter of ['name~=.*', 'size==1', 'name==x y', '==', 'name==x,']) {
    expect([filter, status(() => names(filter))]).toEqual([
      filter,
      filter === 'name==x,' ? Status.ok : Status.invalidArgument,
    ]);
  }
});

test('the record survives a restart', () => {
  layer('sha256:a');
  service.prepare(request('container', 'sha256:a', { x: 'y' }));
  service.close();
  service = new SnapshotService(root);
  expect(names().sort()).toEqual(['container', 'sha256:a']);
  expect(service.stat(target('container')).info).toMatchObject({ parent: 'sha256:a', labels: { x: 'y' } });
});

test('a second snapshotter does not take the socket; a stale one is replaced', async () => {
  const socket = join(root, 's.sock');
  const stop = await serveSnapshotter({ socket, root: join(root, 'one') });
  await expect(serveSnapshotter({ socket, root: join(root, 'two') })).rejects.toThrow(/another snapshotter serves/);
  const metrics = await readMetrics([join(root, 'snapshotter-metrics.sock')]);
  expect(metrics).toContain('sealpod_snapshotter_snapshots 0');
  await stop();
  const again = await serveSnapshotter({ socket, root: join(root, 'one') });
  await again();
});
