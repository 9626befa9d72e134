import { readFileSync } from 'node:fs';
import { buffer } from 'node:stream/consumers';
import {
  encodeAnnotationPacket,
  encodeKeyUnwrapResponse,
  encodeKeyWrapResponse,
  parseAnnotationPacket,
  parseKeyUnwrapRequest,
  parseKeyWrapRequest,
  unwrapPrivateOptions,
  wrapPrivateOptions,
} from '@sealpod/protocol/ocicrypt';

/**
 * A key provider command of ocicrypt for interoperability tests: request on standard input, response on standard
 * output, key encryption key in the file named by the first argument.
 */
const [keyFile = ''] = process.argv.slice(2);
const key = readFileSync(keyFile);
const request = await buffer(process.stdin);
const { op } = JSON.parse(request.toString()) as { readonly op: string };
if (op === 'keywrap') {
  const { parameters, privateOptions } = parseKeyWrapRequest(request);
  const [keyId = ''] = parameters['attestation-agent'] ?? [];
  process.stdout.write(
    encodeKeyWrapResponse(encodeAnnotationPacket({ keyId, ...wrapPrivateOptions(privateOptions, key) })),
  );
} else {
  const { annotation } = parseKeyUnwrapRequest(request);
  process.stdout.write(encodeKeyUnwrapResponse(unwrapPrivateOptions(parseAnnotationPacket(annotation), key)));
}
