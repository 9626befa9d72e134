import type { IncomingMessage, ServerResponse } from 'node:http';

const methods = ['POST', 'GET', 'OPTIONS'];
const headers = ['authorization', 'content-type'];
const vary = 'Origin, Access-Control-Request-Method, Access-Control-Request-Headers';

/**
 * Cross-origin requests as upstream's service treats them (trustee: RESTful-AS). Sets the headers of any answer.
 *
 * @returns true where the request was a preflight, which is answered
 */
export function crossOrigin(
  request: IncomingMessage,
  response: ServerResponse,
  allowedOrigins: readonly string[],
): boolean {
  const { origin } = request.headers;
  const allowed = origin !== undefined && allowedOrigins.includes(origin);
  const method = request.headers['access-control-request-method'];
  if (request.method === 'OPTIONS' && origin !== undefined && method !== undefined) {
    const wanted = (request.headers['access-control-request-headers'] ?? '').split(',').map((name) => name.trim());
    const problem = allowed
      ? problemOf(
          method,
          wanted.filter((name) => name !== ''),
        )
      : 'Origin is not allowed to make this request';
    if (problem !== undefined) {
      response.writeHead(400, { 'content-length': String(problem.length) }).end(problem);
      return true;
    }
    response
      .writeHead(200, {
        'content-length': '0',
        vary,
        'access-control-max-age': '86400',
        'access-control-allow-headers': headers.join(', '),
        'access-control-allow-methods': methods.join(', '),
        'access-control-allow-origin': origin,
      })
      .end();
    return true;
  }
  response.setHeader('vary', vary);
  if (allowed) response.setHeader('access-control-allow-origin', origin);
  return false;
}

function problemOf(method: string, wanted: readonly string[]): string | undefined {
  if (!methods.includes(method)) return 'Requested method is not allowed';
  if (!wanted.every((name) => headers.includes(name.toLowerCase())))
    return 'One or more request headers are not allowed';
  return undefined;
}
