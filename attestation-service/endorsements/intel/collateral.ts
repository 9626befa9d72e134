import { createHash } from 'node:crypto';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import type { Certificate } from '../certificate.ts';
import type { EnrolledRoot } from '../certificate-path.ts';
import { type RevocationList, readRevocationList } from '../revocation-list.ts';
import type { SeenBefore } from './seen-before.ts';
import { type Verified, verifyPckRevocationList, verifySignedDocument } from './signed-document.ts';
import type { IntelAnswer, IntelCollateralSource, IntelTee, PckAuthority } from './source.ts';
import { type EnclaveIdentity, parseEnclaveIdentity, parseTcbInfo, type SignedFor, type TcbInfo } from './tcb-info.ts';

/** Something that was verified, or why there is nothing. */
export type Collateral<Value> =
  | { readonly value: Value; readonly problem?: undefined }
  | { readonly value?: undefined; readonly problem: SealpodError };

/** How long verified collateral is used before the sources are asked again, in milliseconds. */
const refreshAfter = 300_000;
/** How long a failure is remembered: each guest that asks would otherwise make the same questions. */
const retryAfter = 5_000;
const maxKept = 1024;

interface Kept {
  readonly at: number;
  readonly digest?: string;
  readonly outcome: Collateral<unknown>;
}

/**
 * Intel's collateral from the sources of a configuration, with its signatures verified and nothing older than was seen
 * before. What was verified is kept in memory by the digest of its bytes; dates and revocation are for whoever relies on it,
 * each time.
 */
export class IntelCollateral {
  readonly #sources: readonly IntelCollateralSource[];
  readonly #root: EnrolledRoot;
  readonly #seen: Pick<SeenBefore, 'check'>;
  readonly #channel: string;
  readonly #kept = new Map<string, Kept>();
  readonly #underway = new Map<string, Promise<Collateral<unknown>>>();

  constructor(options: {
    readonly sources: readonly IntelCollateralSource[];
    readonly root: EnrolledRoot;
    readonly seen: Pick<SeenBefore, 'check'>;
    /** Numbers of different channels are not comparable. */
    readonly channel: string;
  }) {
    this.#sources = options.sources;
    this.#root = options.root;
    this.#seen = options.seen;
    this.#channel = options.channel;
  }

  get sources(): readonly IntelCollateralSource[] {
    return this.#sources;
  }

  tcbInfo(tee: IntelTee, fmspc: string, now: Date): Promise<Collateral<Verified<TcbInfo>>> {
    const key = `tcb/${tee}/${fmspc}`;
    return this.#get(
      key,
      now,
      (source) => source.tcbInfo(tee, fmspc),
      async (answer) => {
        const verified = verifySignedDocument(answer, 'tcbInfo', parseTcbInfo, this.#root, now);
        const { document } = verified;
        isAbout('TCB info', [document.tee, document.fmspc.toString('hex')], [tee, fmspc.toLowerCase()]);
        await this.#checkNumber(key, verified.document, now, 'TCB info');
        return verified;
      },
    );
  }

  qeIdentity(tee: IntelTee, now: Date): Promise<Collateral<Verified<EnclaveIdentity>>> {
    const key = `qe/${tee}`;
    return this.#get(
      key,
      now,
      (source) => source.qeIdentity(tee),
      async (answer) => {
        const verified = verifySignedDocument(answer, 'enclaveIdentity', parseEnclaveIdentity, this.#root, now);
        isAbout('the identity of a quoting enclave', [verified.document.id], [tee === 'tdx' ? 'TD_QE' : 'QE']);
        await this.#checkNumber(key, verified.document, now, 'the identity of the quoting enclave');
        return verified;
      },
    );
  }

  pckRevocationList(authority: PckAuthority, now: Date): Promise<Collateral<Verified<RevocationList>>> {
    const key = `crl/${authority}`;
    return this.#get(
      key,
      now,
      (source) => source.pckRevocationList(authority),
      async (answer) => {
        const verified = verifyPckRevocationList(answer, authority, this.#root, now);
        await this.#checkList(key, verified.document, now);
        return verified;
      },
    );
  }

  rootRevocationList(now: Date): Promise<Collateral<RevocationList>> {
    return this.#get(
      'crl/root',
      now,
      (source) => source.rootRevocationList(),
      async (answer) => {
        const list = readRevocationList(answer.document, this.#root.anchors[0] as Certificate);
        await this.#checkList('crl/root', list, now);
        return list;
      },
    );
  }

  /** A document from the future tells nothing of the past, and must not make the present one look old. */
  async #checkNumber(
    key: string,
    { evaluationDataNumber, issueDate }: SignedFor,
    now: Date,
    what: string,
  ): Promise<void> {
    if (issueDate > now) return;
    await this.#seen.check(`${this.#channel}/${key}`, [evaluationDataNumber], what);
  }

  /** Intel numbers all of its lists 1: the date decides between equal numbers. */
  async #checkList(key: string, { number = 0n, thisUpdate }: RevocationList, now: Date): Promise<void> {
    if (thisUpdate > now) return;
    await this.#seen.check(key, [Number(number), thisUpdate.getTime()], 'a revocation list');
  }

  async #get<Value>(
    key: string,
    now: Date,
    ask: (source: IntelCollateralSource) => Promise<IntelAnswer | undefined>,
    verify: (answer: IntelAnswer) => Promise<Value>,
  ): Promise<Collateral<Value>> {
    const kept = this.#kept.get(key);
    const age = now.getTime() - (kept?.at ?? Number.NEGATIVE_INFINITY);
    const lifetime = kept?.outcome.value === undefined ? retryAfter : refreshAfter;
    if (kept !== undefined && age >= 0 && age < lifetime) return kept.outcome as Collateral<Value>;
    const underway = this.#underway.get(key);
    if (underway !== undefined) return underway as Promise<Collateral<Value>>;
    const loading = this.#load(key, kept, now, ask, verify).finally(() => this.#underway.delete(key));
    this.#underway.set(key, loading);
    return loading;
  }

  async #load<Value>(
    key: string,
    kept: Kept | undefined,
    now: Date,
    ask: (source: IntelCollateralSource) => Promise<IntelAnswer | undefined>,
    verify: (answer: IntelAnswer) => Promise<Value>,
  ): Promise<Collateral<Value>> {
    const problems: SealpodError[] = [];
    for (const source of this.#sources) {
      try {
        const answer = await ask(source);
        if (answer === undefined) continue;
        const digest = digestOf(answer);
        const known = kept?.digest === digest && kept.outcome.value !== undefined;
        const value = known ? (kept.outcome.value as Value) : await verify(answer);
        return this.#keep(key, { at: now.getTime(), digest, outcome: { value } }) as Collateral<Value>;
      } catch (thrown) {
        problems.push(asSealpodError(thrown));
      }
    }
    // What was verified before goes on being used: whoever relies on it compares its dates.
    if (kept?.outcome.value !== undefined) return this.#keep(key, { ...kept, at: now.getTime() }) as Collateral<Value>;
    const problem =
      problems.find(({ code }) => code !== 'EV_COLLATERAL_UNAVAILABLE') ?? problems[0] ?? this.#missing(key);
    return this.#keep(key, { at: now.getTime(), outcome: { problem } }) as Collateral<Value>;
  }

  #missing(key: string): SealpodError {
    const names = this.#sources.map(({ name }) => name).join(', ');
    return new SealpodError('EV_COLLATERAL_UNAVAILABLE', 'no source has the collateral', {
      expected: `one of: ${names || 'no source is configured'}`,
      actual: `none has ${key}`,
    });
  }

  #keep(key: string, kept: Kept): Collateral<unknown> {
    this.#kept.delete(key);
    this.#kept.set(key, kept);
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > maxKept && oldest !== undefined) this.#kept.delete(oldest);
    return kept.outcome;
  }
}

/**
 * What is signed as it should be may still be about something else than was asked for, and would spoil the memory of what
 * was seen before.
 */
function isAbout(what: string, actual: readonly string[], expected: readonly string[]): void {
  if (actual.join(' ') === expected.join(' ')) return;
  throw new SealpodError('EV_COLLATERAL_UNAVAILABLE', `a source answered with ${what} of something else`, {
    expected: expected.join(' '),
    actual: actual.join(' ').slice(0, 64),
  });
}

function digestOf({ document, issuerChain = '' }: IntelAnswer): string {
  return createHash('sha256').update(`${document.length}:`).update(document).update(issuerChain).digest('hex');
}
