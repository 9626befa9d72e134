import { type RequestOptions, request } from 'node:https';
import type { KubeConfig } from '@kubernetes/client-node';
import { SealpodError } from '@sealpod/protocol/errors';
import { collectionPath, type KubernetesObject, type ObjectReference } from './objects.ts';

const timeoutMs = 30_000;
const maxAnswerBytes = 64 << 20;

/** Owner of the fields that the controller applies. */
export const fieldManager = 'sealpod-controller';

/** The API server has refused. */
export class KubernetesRefusal extends SealpodError {
  readonly status: number;
  /** Word of the API server, e.g. `NotFound` or `Conflict`. */
  readonly reason: string;

  constructor(status: number, reason: string, message: string) {
    super(status === 404 ? 'NOT_FOUND' : 'CONTROL_PLANE', message);
    this.status = status;
    this.reason = reason;
  }
}

interface Body {
  readonly content: unknown;
  readonly type: string;
}

/**
 * Reads and writes objects by their kind. The library's own client of objects writes no status, and drops members that its
 * release does not know; configuration, credentials and watches are the library's.
 */
export class KubernetesClient {
  readonly config: KubeConfig;

  constructor(config: KubeConfig) {
    this.config = config;
  }

  /** The object, or undefined where there is none. */
  async get<T extends KubernetesObject>(reference: ObjectReference): Promise<T | undefined> {
    try {
      return (await this.#send('GET', pathOf(reference))) as T;
    } catch (thrown) {
      if (isStatus(thrown, 404)) return undefined;
      throw thrown;
    }
  }

  async list<T extends KubernetesObject>(
    apiVersion: string,
    kind: string,
    options: { readonly namespace?: string; readonly labels?: string } = {},
  ): Promise<{ readonly items: T[]; readonly metadata: { readonly resourceVersion?: string } }> {
    const query = options.labels === undefined ? '' : `?labelSelector=${encodeURIComponent(options.labels)}`;
    const answer = (await this.#send('GET', collectionPath(apiVersion, kind, options.namespace) + query)) as {
      items: T[];
      metadata: { resourceVersion?: string };
    };
    // Items of a list do not say what they are.
    return { ...answer, items: answer.items.map((item) => ({ ...item, apiVersion, kind })) };
  }

  /** Server-side apply: the members that are given become ours, whoever had them before. */
  async apply(object: KubernetesObject, manager = fieldManager): Promise<KubernetesObject> {
    const query = `?fieldManager=${manager}&force=true`;
    const { apiVersion, kind, metadata } = object;
    const reference = { apiVersion, kind, name: metadata.name, ...namespaceOf(metadata) };
    const body = { content: object, type: 'application/apply-patch+yaml' };
    return (await this.#send('PATCH', pathOf(reference) + query, body)) as KubernetesObject;
  }

  /** @throws KubernetesRefusal of reason `AlreadyExists` */
  async create(object: KubernetesObject): Promise<KubernetesObject> {
    const { apiVersion, kind, metadata } = object;
    const path = `${collectionPath(apiVersion, kind, metadata.namespace)}?fieldManager=${fieldManager}`;
    return (await this.#send('POST', path, json(object))) as KubernetesObject;
  }

  /** Replaces an object. @throws KubernetesRefusal of reason `Conflict` where it was changed since it was read */
  async replace(object: KubernetesObject): Promise<KubernetesObject> {
    const { apiVersion, kind, metadata } = object;
    const reference = { apiVersion, kind, name: metadata.name, ...namespaceOf(metadata) };
    return (await this.#send('PUT', pathOf(reference), json(object))) as KubernetesObject;
  }

  /** Merges members into an object (RFC 7396), or into its status. */
  async merge(reference: ObjectReference, patch: object, subresource = ''): Promise<KubernetesObject> {
    const path = `${pathOf(reference)}${subresource}?fieldManager=${fieldManager}`;
    return (await this.#send('PATCH', path, {
      content: patch,
      type: 'application/merge-patch+json',
    })) as KubernetesObject;
  }

  /** Merges by Kubernetes' own rules, which find the items of lists by their names. */
  async strategicMerge(reference: ObjectReference, patch: object): Promise<KubernetesObject> {
    const path = `${pathOf(reference)}?fieldManager=${fieldManager}`;
    const body = { content: patch, type: 'application/strategic-merge-patch+json' };
    return (await this.#send('PATCH', path, body)) as KubernetesObject;
  }

  /** Deletes an object, and what it owns in the background. Does nothing where there is none. */
  async delete(reference: ObjectReference): Promise<void> {
    const body = json({ apiVersion: 'v1', kind: 'DeleteOptions', propagationPolicy: 'Background' });
    try {
      await this.#send('DELETE', pathOf(reference), body);
    } catch (thrown) {
      if (!isStatus(thrown, 404)) throw thrown;
    }
  }

  async #send(method: string, path: string, body?: Body): Promise<unknown> {
    const server = this.config.getCurrentCluster()?.server;
    if (server === undefined) throw new SealpodError('USAGE', 'no API server is configured');
    const options: RequestOptions = {};
    await this.config.applyToHTTPSOptions(options);
    const text = body === undefined ? undefined : JSON.stringify(body.content);
    const { status, content } = await exchange(
      new URL(server + path),
      {
        ...options,
        method,
        timeout: timeoutMs,
        headers: {
          ...options.headers,
          accept: 'application/json',
          ...(text === undefined ? {} : { 'content-type': body?.type, 'content-length': Buffer.byteLength(text) }),
        },
      },
      text,
    );
    const answer = parse(content, path);
    if (status >= 200 && status < 300) return answer;
    const { reason = String(status), message = content.slice(0, 500) } = answer as {
      reason?: string;
      message?: string;
    };
    throw new KubernetesRefusal(status, reason, message);
  }
}

/** What reads and writes objects. */
export type ObjectClient = Pick<
  KubernetesClient,
  'get' | 'list' | 'apply' | 'create' | 'replace' | 'merge' | 'strategicMerge' | 'delete'
>;

function json(content: unknown): Body {
  return { content, type: 'application/json' };
}

function pathOf({ apiVersion, kind, namespace, name }: ObjectReference): string {
  return `${collectionPath(apiVersion, kind, namespace)}/${encodeURIComponent(name)}`;
}

function namespaceOf({ namespace }: { readonly namespace?: string }): { namespace?: string } {
  return namespace === undefined ? {} : { namespace };
}

function parse(content: string, path: string): unknown {
  try {
    return JSON.parse(content);
  } catch (cause) {
    throw new SealpodError('CONTROL_PLANE', `the API server's answer to ${path} is no JSON`, { cause });
  }
}

/** Whether the API server has answered with this status. */
export function isStatus(thrown: unknown, status: number): thrown is KubernetesRefusal {
  return thrown instanceof KubernetesRefusal && thrown.status === status;
}

function exchange(
  url: URL,
  options: RequestOptions,
  body: string | undefined,
): Promise<{ readonly status: number; readonly content: string }> {
  return new Promise<{ status: number; content: string }>((resolve, reject) => {
    const outgoing = request(url, options, (response) => {
      const chunks: Buffer[] = [];
      let size = 0;
      response.on('data', (chunk: Buffer) => {
        size += chunk.length;
        if (size > maxAnswerBytes) outgoing.destroy(new Error(`the answer exceeds ${maxAnswerBytes} bytes`));
        chunks.push(chunk);
      });
      response.on('error', reject);
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, content: Buffer.concat(chunks).toString('utf8') }),
      );
    });
    outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)));
    outgoing.on('error', reject);
    outgoing.end(body);
  }).catch((cause: unknown) => {
    throw new SealpodError('CONTROL_PLANE', `the API server does not answer: ${options.method ?? ''} ${url.pathname}`, {
      cause,
    });
  });
}
