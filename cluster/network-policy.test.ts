import { expect, it } from 'vitest';
import { removalOf } from './network-policy.ts';

it('takes out the chains of the policy controller, what leads to them first, and nothing else', () => {
  const saved = `*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OTHER - [0:0]
:KUBE-ROUTER-FORWARD - [0:0]
:KUBE-POD-FW-ABC - [0:0]
-A FORWARD -m comment --comment "x -j y" -j KUBE-ROUTER-FORWARD
-A FORWARD -s 10.0.0.0/8 -j OTHER
-A KUBE-ROUTER-FORWARD -d 10.1.1.1/32 -j KUBE-POD-FW-ABC
-A KUBE-POD-FW-ABC -j DROP
COMMIT
`;
  expect(removalOf(saved)).toEqual([
    '-D FORWARD -m comment --comment "x -j y" -j KUBE-ROUTER-FORWARD',
    '-F KUBE-ROUTER-FORWARD',
    '-F KUBE-POD-FW-ABC',
    '-X KUBE-ROUTER-FORWARD',
    '-X KUBE-POD-FW-ABC',
  ]);
  expect(removalOf('*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n')).toEqual([]);
});
