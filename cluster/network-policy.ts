import { execFileSync, spawnSync } from 'node:child_process';

/** Chains and sets of the policy controller: names of kube-router, so only one such controller has a machine. */
const chainName = /^KUBE-(ROUTER|POD-FW|NWPLCY)-/;
const setName = /^(inet6:)?KUBE-(SRC|DST)-/;

/**
 * Lets packets between pods on one bridge pass the rules of policies, which are about packets that are routed. Does not touch
 * other bridges of the machine.
 */
export function policeBridge(bridge: string): void {
  // Built into some kernels; without it the bridge takes the setting and nothing comes of it.
  spawnSync('modprobe', ['br_netfilter'], { stdio: 'ignore' });
  execFileSync('ip', ['link', 'set', bridge, 'type', 'bridge', 'nf_call_iptables', '1']);
}

/** Removes what the policy controller left in the packet filter: it keeps its rules when it ends. */
export function removePolicyRules(): void {
  const saved = spawnSync('iptables-save', ['-t', 'filter'], { encoding: 'utf8' }).stdout ?? '';
  const lines = removalOf(saved);
  if (lines.length > 0)
    execFileSync('iptables-restore', ['--noflush'], { input: `*filter\n${lines.join('\n')}\nCOMMIT\n` });
  const sets = spawnSync('ipset', ['list', '-name'], { encoding: 'utf8' }).stdout ?? '';
  for (const name of sets.split('\n').filter((set) => setName.test(set)))
    spawnSync('ipset', ['destroy', name], { stdio: 'ignore' });
}

/** The lines of `iptables-restore` that take the controller's chains out of what `iptables-save` printed. */
export function removalOf(saved: string): string[] {
  const lines = saved.split('\n');
  const chains = lines.flatMap((line) => /^:(\S+)/.exec(line)?.[1] ?? []).filter((chain) => chainName.test(chain));
  const jumps = lines.filter((line) => {
    const [, chain = '', target = ''] = /^-A (\S+) .*-[jg] (\S+)/.exec(line) ?? [];
    return chainName.test(target) && !chainName.test(chain);
  });
  return [
    ...jumps.map((line) => line.replace(/^-A/, '-D')),
    ...chains.map((chain) => `-F ${chain}`),
    ...chains.map((chain) => `-X ${chain}`),
  ];
}
