import type { EarClaims } from '@sealpod/protocol/ear';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject } from '@sealpod/protocol/json';
import { type Entry, jsonOf, type Operations, type Storage } from '@sealpod/storage';
import type { TokenKeyAdministration, TokenKeyDescription } from './administration.ts';
import { newTokenKey, TokenSigner } from './signer.ts';

const namespace = 'attestation-token-keys';
const recordKey = 'keys';
/** Where releases with one key for ever kept it. */
const formerKey = { namespace: 'attestation-secret', key: 'token-key' } as const;
/** How long a new key is published before anything is signed with it, so that caches of the key set know it. */
const publicationLeadMs = 5 * 60_000;
/** How long a replica signs with what it knows; far less than the lead, so that no replica signs with a withdrawn key. */
const refreshMs = 10_000;
/** Clocks of relying parties may be behind. */
const graceMs = 60_000;

interface StoredKey {
  /** PKCS#8 DER, base64. */
  readonly pkcs8: string;
  /** Milliseconds since the epoch. */
  readonly signsFrom: number;
}

interface LoadedKey {
  readonly signer: TokenSigner;
  readonly signsFrom: number;
  /** Until when tokens of it may be met; undefined while no other key has taken over. */
  readonly verifiesUntil?: number;
}

/** What the rotation of keys depends on. */
export interface TokenKeysOptions {
  /** Lifetime of tokens. */
  readonly lifetimeSeconds: number;
  /** A key signs for so long before the next one takes over by itself; undefined: until it is rotated by hand. */
  readonly rotateAfterSeconds?: number;
}

/**
 * The keys that sign tokens, in storage, the same for all replicas. A new key is published five minutes before it signs
 * (`kid` tells them apart), an old one stays published until its last token has expired; no replica needs a restart.
 */
export class TokenKeys implements TokenKeyAdministration {
  readonly #storage: Storage;
  readonly #options: TokenKeysOptions;
  readonly #now: () => Date;
  readonly #signers = new Map<string, TokenSigner>();
  #keys: readonly LoadedKey[] = [];
  #readAt = Number.NEGATIVE_INFINITY;

  private constructor(storage: Storage, options: TokenKeysOptions, now: () => Date) {
    this.#storage = storage;
    this.#options = options;
    this.#now = now;
  }

  /** @throws SealpodError STORAGE */
  static async open(storage: Storage, options: TokenKeysOptions, now: () => Date): Promise<TokenKeys> {
    const keys = new TokenKeys(storage, options, now);
    if ((await storage.get(namespace, recordKey)) === undefined) {
      const fresh = Buffer.from(await newTokenKey());
      await keys.#write(async (stored, transaction) => {
        if (stored.length > 0) return stored;
        const former = await transaction.get(formerKey.namespace, formerKey.key);
        // How old a former key is nobody knows.
        const signsFrom = former === undefined ? keys.#now().getTime() : 0;
        return [{ pkcs8: Buffer.from(former?.value ?? fresh).toString('base64'), signsFrom }];
      });
    }
    await keys.#refresh();
    return keys;
  }

  /** Signs with the key whose turn it is. @throws SealpodError STORAGE */
  async sign(claims: EarClaims): Promise<string> {
    const now = this.#now().getTime();
    if (Math.abs(now - this.#readAt) >= refreshMs) await this.#refresh();
    const current = signingAt(this.#keys, now);
    if (current === undefined) throw new SealpodError('STORAGE', 'there is no token key');
    return current.signer.sign(claims);
  }

  /** The keys that verify tokens, those that do not sign yet included. @throws SealpodError STORAGE */
  async jwks(): Promise<{ readonly keys: JsonObject[] }> {
    return { keys: (await this.#published()).map(({ signer }) => signer.publicJwk()) };
  }

  async list(): Promise<readonly TokenKeyDescription[]> {
    const published = await this.#published();
    const now = this.#now().getTime();
    const signing = signingAt(published, now);
    return published.map((key) => {
      const { signer, signsFrom, verifiesUntil } = key;
      return {
        kid: signer.keyId,
        state: key === signing ? 'signing' : signsFrom > now ? 'next' : 'retired',
        ...(signsFrom === 0 ? {} : { signsFrom: new Date(signsFrom).toISOString() }),
        ...(verifiesUntil === undefined ? {} : { publishedUntil: new Date(verifiesUntil).toISOString() }),
      };
    });
  }

  async rotate(): Promise<{ readonly rotated: boolean; readonly keys: readonly TokenKeyDescription[] }> {
    const rotated = await this.#add((stored) => !stored.some(({ signsFrom }) => signsFrom > this.#now().getTime()));
    return { rotated, keys: await this.list() };
  }

  async #published(): Promise<readonly LoadedKey[]> {
    await this.#refresh();
    const now = this.#now().getTime();
    return this.#keys.filter(({ verifiesUntil }) => verifiesUntil === undefined || verifiesUntil > now);
  }

  /** Adds a key where `due` says so, of the keys as they are then; drops those whose tokens have all expired. */
  async #add(due: (stored: readonly StoredKey[]) => boolean): Promise<boolean> {
    const fresh = Buffer.from(await newTokenKey()).toString('base64');
    let added = false;
    await this.#write(async (stored) => {
      added = due(stored);
      if (!added) return stored;
      const now = this.#now().getTime();
      const met = withEnds(stored, this.#options).filter(({ verifiesUntil = now + 1 }) => verifiesUntil > now);
      return [
        ...met.map(({ pkcs8, signsFrom }) => ({ pkcs8, signsFrom })),
        { pkcs8: fresh, signsFrom: now + publicationLeadMs },
      ];
    });
    return added;
  }

  #write(
    change: (stored: readonly StoredKey[], transaction: Operations) => Promise<readonly StoredKey[]>,
  ): Promise<void> {
    return this.#storage.transaction(async (transaction) => {
      const entry = await transaction.get(namespace, recordKey);
      const stored = entry === undefined ? [] : parse(entry);
      const changed = await change(stored, transaction);
      if (changed !== stored) await transaction.put(namespace, recordKey, JSON.stringify({ keys: changed }));
    });
  }

  async #refresh(): Promise<void> {
    const { rotateAfterSeconds } = this.#options;
    const isDue = (stored: readonly StoredKey[]): boolean => {
      const newest = stored.at(-1)?.signsFrom ?? 0;
      return rotateAfterSeconds !== undefined && newest + rotateAfterSeconds * 1000 <= this.#now().getTime();
    };
    let stored = await this.#read();
    if (isDue(stored)) {
      // A storage that is full must not keep the key that there is from signing; the next refresh tries again.
      await this.#add(isDue).catch((thrown: unknown) => {
        if (stored.length === 0) throw asSealpodError(thrown);
      });
      stored = await this.#read();
    }
    this.#keys = await Promise.all(
      withEnds(stored, this.#options).map(async ({ pkcs8, signsFrom, verifiesUntil }) => ({
        signer: await this.#signerOf(pkcs8),
        signsFrom,
        ...(verifiesUntil === undefined ? {} : { verifiesUntil }),
      })),
    );
    for (const pkcs8 of this.#signers.keys())
      if (!stored.some((key) => key.pkcs8 === pkcs8)) this.#signers.delete(pkcs8);
    this.#readAt = this.#now().getTime();
  }

  async #read(): Promise<readonly StoredKey[]> {
    const entry = await this.#storage.get(namespace, recordKey);
    return entry === undefined ? [] : parse(entry);
  }

  async #signerOf(pkcs8: string): Promise<TokenSigner> {
    const signer = this.#signers.get(pkcs8) ?? (await TokenSigner.open(Buffer.from(pkcs8, 'base64')));
    this.#signers.set(pkcs8, signer);
    return signer;
  }
}

/** The key whose turn it is. Keys are in the order of their turns. */
function signingAt(keys: readonly LoadedKey[], now: number): LoadedKey | undefined {
  return keys.findLast(({ signsFrom }) => signsFrom <= now) ?? keys[0];
}

/** A key may be met until the last token that it signed, just before its successor took over, has expired. */
function withEnds(
  stored: readonly StoredKey[],
  { lifetimeSeconds }: TokenKeysOptions,
): (StoredKey & { readonly verifiesUntil?: number })[] {
  return stored.map((key, index) => {
    const successor = stored[index + 1];
    if (successor === undefined) return key;
    return { ...key, verifiesUntil: successor.signsFrom + refreshMs + lifetimeSeconds * 1000 + graceMs };
  });
}

function parse(entry: Entry): readonly StoredKey[] {
  const { keys } = jsonOf(entry) as { readonly keys?: unknown };
  const isKey = (value: unknown): value is StoredKey =>
    typeof value === 'object' &&
    value !== null &&
    'pkcs8' in value &&
    typeof value.pkcs8 === 'string' &&
    'signsFrom' in value &&
    typeof value.signsFrom === 'number';
  if (!Array.isArray(keys) || !keys.every(isKey))
    throw new SealpodError('STORAGE', 'the stored token keys are damaged');
  return keys;
}
