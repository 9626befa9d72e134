import type { JsonObject } from '@sealpod/protocol/json';
import type { SubmoduleClaims } from '../verifier.ts';

/** Names of the links that a device has to others: physical device identifiers, hexadecimal. */
export interface DeviceLinks {
  readonly teeClass: 'gpu' | 'switch';
  readonly peers: readonly string[];
}

const gpus = 8;
const switches = 4;

/**
 * The submodule of a protected PCIe topology, as upstream has it: exactly eight GPUs that each name the same four switches, and
 * four switches that each name the same eight GPUs. Undefined for any other set of devices.
 */
export function protectedTopology(devices: readonly DeviceLinks[]): SubmoduleClaims | undefined {
  const peersOf = (teeClass: DeviceLinks['teeClass']): string[][] =>
    devices.filter((device) => device.teeClass === teeClass).map(({ peers }) => distinct(peers));
  const [ofGpus, ofSwitches] = [peersOf('gpu'), peersOf('switch')];
  const whole =
    ofGpus.length === gpus && ofSwitches.length === switches && agree(ofGpus, switches) && agree(ofSwitches, gpus);
  const claims: JsonObject = { switch_count: switches, gpu_count: gpus };
  return whole ? { teeClass: 'ppcie', claims } : undefined;
}

/** A link without a peer has zeros. */
function distinct(peers: readonly string[]): string[] {
  return [...new Set(peers.map((peer) => peer.toLowerCase()))].filter((peer) => /[^0x]/.test(peer)).sort();
}

function agree(lists: readonly string[][], length: number): boolean {
  const [first = []] = lists;
  return lists.every((list) => list.length === length && list.join() === first.join());
}
