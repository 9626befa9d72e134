import { asSealpodError } from '@sealpod/protocol/errors';
import {
  GetResourceService,
  ImagePullService,
  SealedSecretService,
  SecureMountService,
} from '@sealpod/protocol/gen/coco/confidential_data_hub_pb';
import { KeyProviderService } from '@sealpod/protocol/gen/coco/keyprovider_pb';
import { encodeKeyUnwrapResponse, parseKeyUnwrapRequest } from '@sealpod/protocol/ocicrypt';
import { Status, TtrpcError, type TtrpcServer } from '@sealpod/protocol/ttrpc';
import { describeFailure } from '../attestation-agent/refusal.ts';
import type { DataHub, PullImage } from './data-hub.ts';

/** Where upstream's Kata agent, image tools and REST server look for these services. */
export const dataHubSocket = '/run/confidential-containers/cdh.sock';

/**
 * Serves the data hub's ttrpc services as upstream's confidential-data-hub does, with the reason of a failure appended to
 * upstream's text. `WrapKey` and `SecureMount` are answered as not supported.
 */
export function addDataHubServices(server: TtrpcServer, hub: DataHub, pullImage?: PullImage): TtrpcServer {
  return server
    .addService(GetResourceService, {
      getResource: ({ ResourcePath }) =>
        answer('Get Resource failed', async () => ({ Resource: await hub.getResource(ResourcePath) })),
    })
    .addService(SealedSecretService, {
      unsealSecret: ({ secret }) =>
        answer('Unseal Secret failed', async () => ({ plaintext: await hub.unsealSecret(secret) })),
    })
    .addService(SecureMountService, {})
    .addService(ImagePullService, {
      ...(pullImage === undefined
        ? {}
        : {
            pullImage: ({ imageUrl, bundlePath }, { signal }) =>
              answer('Image Pull error', () => pullImage(imageUrl, bundlePath, signal)),
          }),
    })
    .addService(KeyProviderService, {
      unWrapKey: async ({ KeyProviderKeyWrapProtocolInput }) => ({
        KeyProviderKeyWrapProtocolOutput: await unwrapKey(hub, KeyProviderKeyWrapProtocolInput),
      }),
    });
}

async function unwrapKey(hub: DataHub, input: Uint8Array): Promise<Buffer> {
  let annotation: Uint8Array;
  try {
    ({ annotation } = parseKeyUnwrapRequest(input));
  } catch (cause) {
    throw new TtrpcError(Status.internal, '[ERROR] UnwrapKey Parse request failed', { cause });
  }
  return await answer('Decrypt Image (UnwrapKey) failed', async () =>
    encodeKeyUnwrapResponse(await hub.unwrapKey(annotation)),
  );
}

async function answer<Result>(text: string, produce: () => Promise<Result>): Promise<Result> {
  try {
    return await produce();
  } catch (cause) {
    const reason = describeFailure(asSealpodError(cause));
    throw new TtrpcError(Status.internal, `[CDH] [ERROR]: ${text}: ${reason}`, { cause });
  }
}
