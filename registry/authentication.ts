import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, optionalMember, parseJson } from '@sealpod/protocol/json';
import { type HttpResponse, readBody, type Transport } from './transport.ts';

/** User name and password, or a personal access token as password. */
export interface Credentials {
  readonly username: string;
  readonly password: string;
}

/** One challenge of `WWW-Authenticate` (RFC 9110 §11.6.1); parameter names in lower case. */
export interface Challenge {
  readonly scheme: string;
  readonly parameters: Readonly<Record<string, string>>;
}

const maxTokenBytes = 256 * 1024;
/** A token without `expires_in` lives this long (distribution, token authentication). */
const defaultTokenLifetimeSeconds = 60;
const expirySkewMs = 10_000;

/** Parses `WWW-Authenticate`; what cannot be read ends the list. */
export function parseChallenges(header: string): Challenge[] {
  const challenges: Challenge[] = [];
  let rest = header.slice(0, 8192);
  while (true) {
    const scheme = /^[\s,]*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:\s+|$)/.exec(rest);
    if (scheme?.[1] === undefined) return challenges;
    rest = rest.slice(scheme[0].length);
    const parameters: Record<string, string> = {};
    while (true) {
      const parameter = /^[\s,]*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))/.exec(rest);
      if (parameter?.[1] === undefined) break;
      parameters[parameter[1].toLowerCase()] = parameter[2]?.replace(/\\(.)/g, '$1') ?? parameter[3] ?? '';
      rest = rest.slice(parameter[0].length);
    }
    challenges.push({ scheme: scheme[1].toLowerCase(), parameters });
  }
}

/** Answers a registry's challenges and remembers the tokens, one a scope, until shortly before they expire. */
export class Authenticator {
  readonly #transport: Transport;
  readonly #credentials: Credentials | undefined;
  readonly #tokens = new Map<string, { readonly header: string; readonly expires: number }>();
  readonly #pending = new Map<string, Promise<string>>();

  constructor(transport: Transport, credentials: Credentials | undefined) {
    this.#transport = transport;
    this.#credentials = credentials;
  }

  /** The `Authorization` value known to work for `scope`, if there is one. */
  header(scope: string): string | undefined {
    const known = this.#tokens.get(scope);
    return known !== undefined && known.expires > Date.now() ? known.header : undefined;
  }

  /**
   * Makes an `Authorization` value that answers a 401. Requests that were challenged together share one token request.
   *
   * @throws SealpodError IMG_AUTH where there is nothing to answer with, or the token server refuses
   */
  async answer(scope: string, response: HttpResponse, signal?: AbortSignal): Promise<string> {
    const pending = this.#pending.get(scope);
    if (pending !== undefined) return pending;
    const answering = this.#answerOnce(scope, response, signal).finally(() => this.#pending.delete(scope));
    this.#pending.set(scope, answering);
    return answering;
  }

  async #answerOnce(scope: string, response: HttpResponse, signal?: AbortSignal): Promise<string> {
    const challenges = parseChallenges(response.headers['www-authenticate'] ?? '');
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
    if (bearer !== undefined) {
      const token = await this.#fetchToken(bearer.parameters, scope, response.url, signal);
      this.#tokens.set(scope, token);
      return token.header;
    }
    if (challenges.some(({ scheme }) => scheme === 'basic') && this.#credentials !== undefined) {
      const header = basicHeader(this.#credentials);
      this.#tokens.set(scope, { header, expires: Number.POSITIVE_INFINITY });
      return header;
    }
    throw notAuthorized(response.url.host, 'no credentials are known for this registry');
  }

  async #fetchToken(
    { realm = '', service, scope: challengedScope }: Readonly<Record<string, string>>,
    scope: string,
    registry: URL,
    signal?: AbortSignal,
  ): Promise<{ readonly header: string; readonly expires: number }> {
    const url = URL.parse(realm);
    if (url === null || !this.#transport.allows(url)) {
      throw notAuthorized(registry.host, 'its token server is not allowed to be spoken to');
    }
    if (service !== undefined) url.searchParams.set('service', service);
    url.searchParams.set('scope', challengedScope ?? scope);
    const response = await this.#transport.send({
      method: 'GET',
      url,
      headers: this.#credentials === undefined ? {} : { authorization: basicHeader(this.#credentials) },
      signal,
    });
    const body = await readBody(response, maxTokenBytes);
    if (response.status !== 200) throw notAuthorized(registry.host, `its token server answers ${response.status}`);
    const document = asJsonObject(
      parseJson(body, { what: 'registry token', code: 'IMG_AUTH' }),
      'registry token',
      'IMG_AUTH',
    );
    const token = optionalMember(document, 'token') ?? optionalMember(document, 'access_token');
    if (typeof token !== 'string' || !/^[\x21-\x7e]+$/.test(token)) {
      throw notAuthorized(registry.host, 'its token server gives no token');
    }
    const lifetime = optionalMember(document, 'expires_in');
    const seconds = typeof lifetime === 'number' && lifetime > 0 ? lifetime : defaultTokenLifetimeSeconds;
    return { header: `Bearer ${token}`, expires: Date.now() + seconds * 1000 - expirySkewMs };
  }
}

/** The refusal of a registry; its text is what Kubernetes tests of Confidential Containers look for. */
export function notAuthorized(host: string, reason: string): SealpodError {
  return new SealpodError('IMG_AUTH', `Not authorized: ${host}: ${reason}`);
}

function basicHeader({ username, password }: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}
