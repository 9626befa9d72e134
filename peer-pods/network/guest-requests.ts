import type { MessageInitShape } from '@bufbuild/protobuf';
import type {
  AddARPNeighborsRequestSchema,
  UpdateInterfaceRequestSchema,
  UpdateRoutesRequestSchema,
} from '@sealpod/protocol/gen/kata/agent_pb';
import { IPFamily } from '@sealpod/protocol/gen/kata/types_pb';
import type { PodNetwork } from './inspect.ts';

/** Neighbour state NUD_PERMANENT and route flag RTNH_F_ONLINK of rtnetlink. */
const permanent = 128;
const onLinkFlag = 4;

export interface GuestNetworkRequests {
  readonly updateInterface: MessageInitShape<typeof UpdateInterfaceRequestSchema>;
  readonly updateRoutes: MessageInitShape<typeof UpdateRoutesRequestSchema>;
  readonly addNeighbours: MessageInitShape<typeof AddARPNeighborsRequestSchema>;
}

/** What the guest agent has to be told so that the VM takes the pod's place in the network. */
export function guestNetworkRequests(network: PodNetwork): GuestNetworkRequests {
  const device = network.interfaceName;
  return {
    updateInterface: {
      interface: {
        device,
        name: device,
        hwAddr: network.macAddress,
        mtu: BigInt(network.mtu),
        IPAddresses: network.addresses.map(({ address, prefixLength }) => ({
          family: familyOf(address),
          address,
          mask: String(prefixLength),
        })),
      },
    },
    updateRoutes: {
      routes: {
        Routes: network.routes.map((route) => ({
          dest: route.destination ?? '',
          gateway: route.gateway ?? '',
          device,
          source: route.source ?? '',
          scope: route.scope,
          family: route.version === 4 ? IPFamily.v4 : IPFamily.v6,
          flags: route.onLink ? onLinkFlag : 0,
          mtu: route.mtu ?? 0,
        })),
      },
    },
    addNeighbours: {
      neighbors: {
        ARPNeighbors: network.neighbours.map(({ address, macAddress }) => ({
          toIPAddress: { family: familyOf(address), address },
          device,
          lladdr: macAddress,
          state: permanent,
        })),
      },
    },
  };
}

const familyOf = (address: string) => (address.includes(':') ? IPFamily.v6 : IPFamily.v4);
