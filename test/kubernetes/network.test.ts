import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { clusterObstacle, skipped } from './access.ts';
import { fetchText, freePort } from './connections.ts';
import { TestCluster, type TestPod } from './test-cluster.ts';

const obstacle = clusterObstacle();

/** Serves a page on all addresses (8080), and another on localhost alone (8081). */
const server = (page: string): readonly string[] => [
  '/bin/sh',
  '-c',
  [
    'mkdir -p /tmp/www /tmp/local',
    `echo ${page} > /tmp/www/index.html`,
    'echo local > /tmp/local/index.html',
    'httpd -p 127.0.0.1:8081 -h /tmp/local',
    'exec httpd -f -p 8080 -h /tmp/www',
  ].join('; '),
];
const probe = { readinessProbe: { httpGet: { path: '/', port: 8080 }, periodSeconds: 1 } };

const sealed: TestPod = {
  name: 'sealed',
  labels: { access: 'no' },
  containers: [{ name: 'main', command: server('sealed'), ports: [{ name: 'web', containerPort: 8080 }], ...probe }],
  spec: {
    hostname: 'first',
    subdomain: 'group',
    dnsPolicy: 'None',
    dnsConfig: {
      nameservers: ['10.255.255.1'],
      searches: ['default.svc.cluster.local', 'example.org'],
      options: [{ name: 'ndots', value: '3' }],
    },
    hostAliases: [{ ip: '10.9.8.7', hostnames: ['alias.example', 'other.example'] }],
  },
};

describe.skipIf(obstacle !== undefined)(`the network of pods in machines of their own${skipped(obstacle)}`, () => {
  const cluster = new TestCluster();
  const objects = 'pod/sealed,pod/server,pod/friend,pod/stranger,service/sealed,networkpolicy/all,networkpolicy/out';

  const plain = (name: string, labels: object) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, labels: { app: name, ...labels } },
    spec: {
      terminationGracePeriodSeconds: 0,
      containers: [{ name: 'main', image: cluster.image, command: server(name), ...probe }],
    },
  });
  const addressOf = (pod: string): Promise<string> => cluster.ok('get', 'pod', pod, '-o', 'jsonpath={.status.podIP}');
  /** What a pod gets from another's server; empty where it is kept from it. */
  const reach = async (from: string, to: string): Promise<string> => {
    const url = `http://${await addressOf(to)}:8080/`;
    return (await cluster.kubectl('exec', from, '--', 'timeout', '5', 'wget', '-qO-', url)).stdout;
  };
  const expectReach = (from: string, to: string, page: string): Promise<void> =>
    expect.poll(() => reach(from, to), { timeout: 60_000, interval: 500 }).toBe(page);
  const policy = (name: string, spec: object) => ({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name },
    spec,
  });

  beforeAll(async () => {
    await cluster.start();
    await cluster.apply(
      cluster.pod(sealed),
      plain('server', { access: 'no' }),
      plain('friend', { access: 'yes' }),
      plain('stranger', { access: 'no' }),
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'sealed' },
        spec: { selector: { app: 'sealed' }, ports: [{ port: 80, targetPort: 'web' }] },
      },
    );
    await cluster.waitFor('condition=Ready', 'pod/sealed', 'pod/server', 'pod/friend', 'pod/stranger');
  });
  afterAll(async () => {
    if (cluster.running) await cluster.kubectl('delete', ...objects.split(','), '--ignore-not-found', '--wait=false');
    await cluster.stop();
  });

  it('names: dnsPolicy and dnsConfig, hostAliases, host name and subdomain are as the pod says', async () => {
    const cat = (file: string) => cluster.ok('exec', 'sealed', '--', 'cat', file);
    expect(await cat('/etc/resolv.conf')).toBe(
      'search default.svc.cluster.local example.org\nnameserver 10.255.255.1\noptions ndots:3\n',
    );
    const hosts = await cat('/etc/hosts');
    expect(hosts).toMatch(/^10\.9\.8\.7\s+alias\.example\s+other\.example$/m);
    expect(hosts).toMatch(
      new RegExp(`^${await addressOf('sealed')}\\s+first\\.group\\.default\\.svc\\.cluster\\.local\\s+first$`, 'm'),
    );
    expect(await cluster.ok('exec', 'sealed', '--', 'hostname')).toBe('first\n');
  });

  it('port-forward reaches a server on all addresses, and none that listens on the machine’s localhost alone', async () => {
    const [open, local] = [await freePort(), await freePort()];
    const forward = cluster.spawnKubectl('port-forward', 'pod/sealed', `${open}:8080`, `${local}:8081`);
    let said = '';
    forward.stderr.on('data', (chunk: Buffer) => {
      said += chunk;
    });
    try {
      await expect.poll(() => fetchText(`http://127.0.0.1:${open}/`), { timeout: 30_000 }).toBe('sealed\n');
      expect(await cluster.ok('exec', 'sealed', '--', 'wget', '-qO-', 'http://127.0.0.1:8081/')).toBe('local\n');
      expect(await fetchText(`http://127.0.0.1:${local}/`)).toBe('');
      await expect.poll(() => said, { timeout: 20_000 }).toMatch(/connection refused/i);
    } finally {
      forward.kill();
    }
  });

  it('port-forward to a Service', async () => {
    const port = await freePort();
    const forward = cluster.spawnKubectl('port-forward', 'service/sealed', `${port}:80`);
    try {
      await expect.poll(() => fetchText(`http://127.0.0.1:${port}/`), { timeout: 30_000 }).toBe('sealed\n');
    } finally {
      forward.kill();
    }
  });

  it('without a policy all pods reach each other', async () => {
    await expectReach('stranger', 'sealed', 'sealed\n');
    await expectReach('stranger', 'server', 'server\n');
    await expectReach('sealed', 'server', 'server\n');
    await expectReach('sealed', 'friend', 'friend\n');
  });

  it('NetworkPolicy, ingress: a sealed pod is held to it as a runc pod is, also by the address of its Service', async () => {
    await cluster.apply(
      policy('all', {
        podSelector: { matchExpressions: [{ key: 'app', operator: 'In', values: ['sealed', 'server'] }] },
        policyTypes: ['Ingress'],
        ingress: [{ from: [{ podSelector: { matchLabels: { access: 'yes' } } }], ports: [{ port: 8080 }] }],
      }),
    );
    for (const target of ['sealed', 'server']) {
      await expectReach('stranger', target, '');
      await expectReach('friend', target, `${target}\n`);
    }
    const service = await cluster.ok('get', 'service', 'sealed', '-o', 'jsonpath={.spec.clusterIP}');
    const byService = async (from: string): Promise<string> =>
      (await cluster.kubectl('exec', from, '--', 'timeout', '5', 'wget', '-qO-', `http://${service}/`)).stdout;
    expect(await byService('stranger')).toBe('');
    expect(await byService('friend')).toBe('sealed\n');
    // The policy is about who comes in.
    await expectReach('sealed', 'friend', 'friend\n');
    await cluster.delete('networkpolicy/all');
    await expectReach('stranger', 'sealed', 'sealed\n');
  });

  it('NetworkPolicy, egress: a sealed pod reaches what it may and nothing else, as a runc pod does', async () => {
    await cluster.apply(
      policy('out', {
        podSelector: { matchExpressions: [{ key: 'app', operator: 'In', values: ['sealed', 'server'] }] },
        policyTypes: ['Egress'],
        egress: [{ to: [{ podSelector: { matchLabels: { access: 'yes' } } }] }],
      }),
    );
    for (const from of ['sealed', 'server']) {
      await expectReach(from, 'stranger', '');
      await expectReach(from, 'friend', 'friend\n');
    }
    // The policy is about who goes out.
    await expectReach('stranger', 'sealed', 'sealed\n');
    await cluster.delete('networkpolicy/out');
    await expectReach('sealed', 'stranger', 'stranger\n');
  });
});
