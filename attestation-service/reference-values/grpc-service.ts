import type { MessageShape } from '@bufbuild/protobuf';
import type { ServerUnaryCall } from '@grpc/grpc-js';
import {
  type ReferenceValueDeleteRequestSchema,
  ReferenceValueDeleteResponseSchema,
  type ReferenceValueListRequestSchema,
  ReferenceValueListResponseSchema,
  type ReferenceValueQueryRequestSchema,
  ReferenceValueQueryResponseSchema,
  type ReferenceValueRegisterRequestSchema,
  ReferenceValueRegisterResponseSchema,
} from '@sealpod/protocol/gen/coco/reference_pb';
import { unary } from '../grpc/unary.ts';
import type { AttestationService } from '../service.ts';
import type { AdministratorIdentity } from './provenance.ts';
import { unusable } from './usable.ts';

/** Who makes a call. @throws SealpodError ADMIN_TOKEN where they may not */
export type Authorise = (call: ServerUnaryCall<unknown, unknown>) => AdministratorIdentity | undefined;

/**
 * Handlers of `reference.ReferenceValueProviderService`: upstream's two calls, and listing and deleting beside them.
 * Unlike upstream a query does not tell a value that has expired.
 */
export function referenceValueHandlers(service: AttestationService, authorise: Authorise) {
  return {
    queryReferenceValue: unary(
      ReferenceValueQueryResponseSchema,
      async ({ referenceValueId }: MessageShape<typeof ReferenceValueQueryRequestSchema>, _metadata, call) => {
        authorise(call);
        const stored = await service.getReferenceValue(referenceValueId);
        const usable =
          stored !== undefined && unusable(stored, { acceptUnsigned: true, now: new Date() }) === undefined;
        return { message: usable ? { referenceValueResults: JSON.stringify(stored.value) } : {} };
      },
    ),
    registerReferenceValue: unary(
      ReferenceValueRegisterResponseSchema,
      async ({ message }: MessageShape<typeof ReferenceValueRegisterRequestSchema>, _metadata, call) => {
        await service.registerReferenceValues(message, authorise(call));
        return { message: {} };
      },
    ),
    listReferenceValues: unary(
      ReferenceValueListResponseSchema,
      async (_request: MessageShape<typeof ReferenceValueListRequestSchema>, _metadata, call) => {
        authorise(call);
        const stored = await service.listReferenceValues();
        return {
          message: {
            referenceValueIds: [...new Set(stored.map(({ id }) => id))],
            referenceValues: JSON.stringify(stored),
          },
        };
      },
    ),
    deleteReferenceValue: unary(
      ReferenceValueDeleteResponseSchema,
      async ({ referenceValueId }: MessageShape<typeof ReferenceValueDeleteRequestSchema>, _metadata, call) => {
        const administrator = authorise(call);
        const deleted = await service.deleteReferenceValue(
          referenceValueId,
          administrator === undefined ? {} : { administrator },
        );
        return { message: { deleted } };
      },
    ),
  };
}
