import { create, type DescMessage, type MessageInitShape, type MessageShape } from '@bufbuild/protobuf';
import { type Metadata, type ServerUnaryCall, type sendUnaryData, status } from '@grpc/grpc-js';
import { asSealpodError } from '@sealpod/protocol/errors';
import { AttestationRefused } from '../service.ts';
import { type Explanation, explain } from './side-channel.ts';

/** What a handler answers, and what an administrator is told beside it. */
export interface Answer<Schema extends DescMessage> {
  readonly message: MessageInitShape<Schema>;
  readonly explanation?: Omit<Explanation, 'verdict'> & Pick<Explanation, 'verdict'>;
}

/** Adapts an asynchronous handler: answers, and turns what it throws into a status as upstream does (ABORTED, with text). */
export function unary<Request, Schema extends DescMessage>(
  schema: Schema,
  handle: (
    request: Request,
    metadata: Metadata,
    call: ServerUnaryCall<Request, MessageShape<Schema>>,
  ) => Promise<Answer<Schema>>,
  mayExplain: (metadata: Metadata) => boolean = () => false,
) {
  return (
    call: ServerUnaryCall<Request, MessageShape<Schema>>,
    callback: sendUnaryData<MessageShape<Schema>>,
  ): void => {
    handle(call.request, call.metadata, call).then(
      ({ message, explanation }) =>
        callback(null, create(schema, message), explain(explanation && pickExplanation(explanation))),
      (thrown: unknown) => {
        const error = asSealpodError(thrown);
        const explanation = error instanceof AttestationRefused && mayExplain(call.metadata) ? error : undefined;
        const denied = error.code === 'ADMIN_TOKEN';
        callback({
          code: denied ? status.PERMISSION_DENIED : status.ABORTED,
          details: `${error.code}: ${error.message}`,
          metadata: explain(
            explanation && { verdict: explanation.verdict, evidenceDigest: explanation.evidenceDigest },
            error.code,
          ),
        });
      },
    );
  };
}

function pickExplanation({
  verdict,
  evidenceDigest,
  policyVersions,
  referenceValueVersions,
}: Explanation): Explanation {
  return {
    verdict,
    evidenceDigest,
    ...(policyVersions === undefined ? {} : { policyVersions }),
    ...(referenceValueVersions === undefined ? {} : { referenceValueVersions }),
  };
}
