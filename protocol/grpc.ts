/**
 * Lets grpc-js serve and call the services of `protocol/gen`.
 *
 * @module
 */
import { type DescMessage, type DescService, fromBinary, type MessageShape, toBinary } from '@bufbuild/protobuf';
import type { MethodDefinition, ServiceDefinition, UntypedServiceImplementation } from '@grpc/grpc-js';

/** A grpc-js service definition; its members are the methods' local names, e.g. `attestationEvaluate`. */
export function toGrpcServiceDefinition(service: DescService): ServiceDefinition<UntypedServiceImplementation> {
  return Object.fromEntries(
    service.methods.map((method) => [
      method.localName,
      {
        path: `/${service.typeName}/${method.name}`,
        originalName: method.name,
        requestStream: method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming',
        responseStream: method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming',
        ...codec('request', method.input),
        ...codec('response', method.output),
      } as MethodDefinition<MessageShape<DescMessage>, MessageShape<DescMessage>>,
    ]),
  );
}

function codec(side: 'request' | 'response', schema: DescMessage): Record<string, unknown> {
  return {
    [`${side}Serialize`]: (message: MessageShape<DescMessage>) => Buffer.from(toBinary(schema, message)),
    [`${side}Deserialize`]: (bytes: Buffer) => fromBinary(schema, bytes),
  };
}
