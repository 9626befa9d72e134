import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import {
  decryptResponse,
  generateTeeKey,
  parseResponse,
  runtimeDataDigest,
  type TeePubKey,
} from '@sealpod/protocol/rcar';

export interface Reply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
  readonly text: string;
  readonly json: () => Record<string, unknown>;
}

export interface Call {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string | Uint8Array;
  /** PEM of the certificate to trust. */
  readonly ca?: string;
}

/** One HTTP request, its target sent exactly as it is given. */
export function call(
  address: string,
  target: string,
  { method = 'GET', headers: given = {}, body, ca }: Call = {},
): Promise<Reply> {
  // For GET and DELETE, Node would send a body without saying how long it is.
  const headers = body === undefined ? given : { ...given, 'content-length': String(Buffer.byteLength(body)) };
  const url = new URL(address);
  const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
  return new Promise((resolve, reject) => {
    const options = {
      host: url.hostname.replace(/^\[|\]$/g, ''),
      port: url.port,
      path: target,
      method,
      headers,
      agent: false as const,
    };
    const request = send(
      ca === undefined ? options : { ...options, ca, checkServerIdentity: () => undefined },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () => {
          const bytes = Buffer.concat(chunks);
          const text = bytes.toString('utf8');
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: bytes,
            text,
            json: () => JSON.parse(text),
          });
        });
      },
    );
    request.on('error', reject);
    request.end(body);
  });
}

export interface Guest {
  readonly cookie: string;
  readonly nonce: string;
  readonly correlationId: string;
  readonly extraParams: unknown;
  readonly teePubKey: TeePubKey;
  readonly privateKey: Awaited<ReturnType<typeof generateTeeKey>>['privateKey'];
  readonly attestation: (changes?: {
    nonce?: string;
    key?: TeePubKey;
    additional?: string;
    initData?: unknown;
  }) => string;
}

/** `POST /auth`: a guest with a session, about to attest with `sample` evidence. */
export async function authenticate(address: string, request: object = {}, ca?: string): Promise<Guest> {
  const body = JSON.stringify({ version: '0.4.0', tee: 'sample', 'extra-params': '', ...request });
  const reply = await call(address, '/kbs/v0/auth', { method: 'POST', body, ...(ca === undefined ? {} : { ca }) });
  if (reply.status !== 200) throw new Error(`auth: ${reply.status} ${reply.text}`);
  const challenge = reply.json();
  const { privateKey, teePubKey } = await generateTeeKey('EC-P256');
  const nonce = String(challenge['nonce']);
  return {
    cookie: String(reply.headers['set-cookie']?.[0]).split(';', 1)[0] ?? '',
    nonce,
    correlationId: String(reply.headers['x-correlation-id']),
    extraParams: challenge['extra-params'],
    teePubKey,
    privateKey,
    attestation: ({ nonce: other = nonce, key = teePubKey, additional = '', initData = null } = {}) => {
      const digest = runtimeDataDigest({ nonce: other, teePubKey: key, additionalEvidence: additional });
      return JSON.stringify({
        'init-data': initData,
        'runtime-data': { nonce: other, 'tee-pubkey': key },
        'tee-evidence': {
          primary_evidence: { svn: '1', report_data: digest.toString('base64') },
          additional_evidence: additional,
        },
      });
    },
  };
}

/** `POST /attest` with the guest's session. */
export function attest(address: string, guest: Guest, body = guest.attestation(), ca?: string): Promise<Reply> {
  const headers = { cookie: guest.cookie, 'content-type': 'application/json' };
  return call(address, '/kbs/v0/attest', { method: 'POST', headers, body, ...(ca === undefined ? {} : { ca }) });
}

/** What the JWE of a reply says to this guest. */
export function opened(guest: Guest, reply: Reply): string {
  return decryptResponse(guest.privateKey, parseResponse(reply.body)).toString('utf8');
}
