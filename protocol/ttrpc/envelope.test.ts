import { expect, it } from 'vitest';
import { decodeRequest, encodeRequest, requestTimeoutMs, withTimeout } from './envelope.ts';

it('the limit of a request is read and changed in its bytes, whatever else stands there', () => {
  const request = { service: 's', method: 'm', payload: Buffer.alloc(70_000, 8), metadata: { a: ['1', '2'] } };
  const unlimited = encodeRequest(request);
  expect(requestTimeoutMs(unlimited)).toBeUndefined();
  const limited = encodeRequest({ ...request, timeoutMs: 2 ** 40 });
  expect(requestTimeoutMs(limited)).toBe(2 ** 40);
  const changed = withTimeout(limited, 12.5);
  expect(requestTimeoutMs(changed)).toBe(13);
  expect(encodeRequest({ ...decodeRequest(changed), timeoutMs: undefined })).toEqual(unlimited);
  expect(() => requestTimeoutMs(Buffer.from('ff', 'hex'))).toThrow(expect.objectContaining({ status: 3 }));
});
