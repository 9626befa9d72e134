import { createHash } from 'node:crypto';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import type { Certificate } from '../certificate.ts';
import type { EnrolledRoot } from '../certificate-path.ts';
import { isCurrent, listOrder, type RevocationList, readRevocationList } from '../revocation-list.ts';
import { compareOrders, type SeenBefore } from '../seen-before.ts';
import {
  isCurrentDocument,
  isCurrentList,
  type Verified,
  verifyPckRevocationList,
  verifySignedDocument,
} from './signed-document.ts';
import type { IntelAnswer, IntelCollateralSource, IntelTee, PckAuthority } from './source.ts';
import { type EnclaveIdentity, parseEnclaveIdentity, parseTcbInfo, type SignedFor, type TcbInfo } from './tcb-info.ts';

/** Something that was verified, or why there is nothing. */
export type Collateral<Value> =
  | {
      readonly value: Value;
      readonly problem?: undefined;
      /** Where the value is not current: why another source has none that is. */
      readonly elsewhere?: SealpodError;
    }
  | { readonly value?: undefined; readonly problem: SealpodError };

/** How long verified collateral is used before the sources are asked again, in milliseconds. */
const refreshAfter = 300_000;
/** How long a failure is remembered: each guest that asks would otherwise make the same questions. */
const retryAfter = 5_000;
/** How long one is used that is not current: a source may have a newer one any time. */
const renewAfter = 60_000;
const maxKept = 1024;

interface Kept<Value = unknown> {
  readonly at: number;
  readonly digest?: string;
  readonly outcome: Collateral<Value>;
}

/** What verified, and the digest of its bytes. */
interface Found<Value> {
  readonly digest: string;
  readonly value: Value;
}

/** One piece of collateral: how to get it, and what its dates and numbers are worth. */
interface Wanted<Value> {
  readonly key: string;
  ask(source: IntelCollateralSource): Promise<IntelAnswer | undefined>;
  verify(answer: IntelAnswer): Promise<Value>;
  isCurrent(value: Value): boolean;
  issued(value: Value): Date;
  /** The first number that differs says which of two is newer. */
  order(value: Value): readonly number[];
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
    const verify = async (answer: IntelAnswer): Promise<Verified<TcbInfo>> => {
      const verified = verifySignedDocument(answer, 'tcbInfo', parseTcbInfo, this.#root, now);
      const { document } = verified;
      isAbout('TCB info', [document.tee, document.fmspc.toString('hex')], [tee, fmspc.toLowerCase()]);
      return verified;
    };
    const ask = (source: IntelCollateralSource) => source.tcbInfo(tee, fmspc);
    return this.#document(`tcb/${tee}/${fmspc}`, 'TCB info', ask, verify, now);
  }

  qeIdentity(tee: IntelTee, now: Date): Promise<Collateral<Verified<EnclaveIdentity>>> {
    const verify = async (answer: IntelAnswer): Promise<Verified<EnclaveIdentity>> => {
      const verified = verifySignedDocument(answer, 'enclaveIdentity', parseEnclaveIdentity, this.#root, now);
      isAbout('the identity of a quoting enclave', [verified.document.id], [tee === 'tdx' ? 'TD_QE' : 'QE']);
      return verified;
    };
    const ask = (source: IntelCollateralSource) => source.qeIdentity(tee);
    return this.#document(`qe/${tee}`, 'the identity of the quoting enclave', ask, verify, now);
  }

  pckRevocationList(authority: PckAuthority, now: Date): Promise<Collateral<Verified<RevocationList>>> {
    const key = `crl/${authority}`;
    return this.#get(now, {
      key,
      ask: (source) => source.pckRevocationList(authority),
      verify: async (answer) => {
        const verified = verifyPckRevocationList(answer, authority, this.#root, now);
        await this.#checkList(key, verified.document, now);
        return verified;
      },
      isCurrent: (list) => isCurrentList(list, now),
      issued: ({ document }) => document.thisUpdate,
      order: ({ document }) => listOrder(document),
    });
  }

  rootRevocationList(now: Date): Promise<Collateral<RevocationList>> {
    return this.#get(now, {
      key: 'crl/root',
      ask: (source) => source.rootRevocationList(),
      verify: async (answer) => {
        const list = readRevocationList(answer.document, this.#root.anchors[0] as Certificate);
        await this.#checkList('crl/root', list, now);
        return list;
      },
      isCurrent: (list) => isCurrent(list, now),
      issued: ({ thisUpdate }) => thisUpdate,
      order: listOrder,
    });
  }

  #document<Document extends SignedFor>(
    key: string,
    what: string,
    ask: Wanted<unknown>['ask'],
    verify: (answer: IntelAnswer) => Promise<Verified<Document>>,
    now: Date,
  ): Promise<Collateral<Verified<Document>>> {
    return this.#get(now, {
      key,
      ask,
      verify: async (answer) => {
        const verified = await verify(answer);
        const { issueDate, evaluationDataNumber } = verified.document;
        // A document from the future tells nothing of the past, and must not make the present one look old.
        if (issueDate <= now) await this.#seen.check(`${this.#channel}/${key}`, [evaluationDataNumber], what);
        return verified;
      },
      isCurrent: (verified) => isCurrentDocument(verified, now),
      issued: ({ document }) => document.issueDate,
      order: ({ document }) => [document.evaluationDataNumber, document.issueDate.getTime()],
    });
  }

  async #checkList(key: string, list: RevocationList, now: Date): Promise<void> {
    if (list.thisUpdate <= now) await this.#seen.check(key, listOrder(list), 'a revocation list');
  }

  async #get<Value>(now: Date, wanted: Wanted<Value>): Promise<Collateral<Value>> {
    const { key } = wanted;
    const kept = this.#kept.get(key) as Kept<Value> | undefined;
    if (kept !== undefined) {
      const { value } = kept.outcome;
      const lifetime = value === undefined ? retryAfter : wanted.isCurrent(value) ? refreshAfter : renewAfter;
      const age = now.getTime() - kept.at;
      if (age >= 0 && age < lifetime) return kept.outcome;
    }
    const underway = this.#underway.get(key);
    if (underway !== undefined) return underway as Promise<Collateral<Value>>;
    const loading = this.#load(now, wanted, kept).finally(() => this.#underway.delete(key));
    this.#underway.set(key, loading);
    return loading;
  }

  /**
   * Asks the sources until one has what verifies and is current. Only where none has, the newest of what verified is used:
   * whoever relies on it compares its dates.
   */
  async #load<Value>(now: Date, wanted: Wanted<Value>, kept: Kept<Value> | undefined): Promise<Collateral<Value>> {
    const { key } = wanted;
    const at = now.getTime();
    const problems: SealpodError[] = [];
    const before = kept?.outcome.value;
    let best: Found<Value> | undefined =
      kept?.digest === undefined || before === undefined ? undefined : { digest: kept.digest, value: before };
    for (const source of this.#sources) {
      // What a source remembers may be past its date, or may never have been right.
      for (const asked of source.renewed === undefined ? [source] : [source, source.renewed]) {
        const answer = await wanted.ask(asked).catch((thrown: unknown) => void problems.push(asSealpodError(thrown)));
        if (answer === undefined) break;
        try {
          const digest = digestOf(answer);
          const known = kept?.digest === digest ? before : undefined;
          const value = known === undefined ? await wanted.verify(answer) : known;
          if (wanted.isCurrent(value)) return this.#keep(key, { at, digest, outcome: { value } });
          if (best === undefined || isBetter(wanted, value, best.value, now)) best = { digest, value };
        } catch (thrown) {
          problems.push(asSealpodError(thrown));
        }
      }
    }
    const problem = problems.find(({ code }) => code !== 'EV_COLLATERAL_UNAVAILABLE') ?? problems[0];
    if (best === undefined) return this.#keep(key, { at, outcome: { problem: problem ?? this.#missing(key) } });
    const { digest, value } = best;
    const outcome = { value, ...(problem === undefined ? {} : { elsewhere: problem }) };
    return this.#keep(key, { at, digest, outcome });
  }

  #missing(key: string): SealpodError {
    const names = this.#sources.map(({ name }) => name).join(', ');
    return new SealpodError('EV_COLLATERAL_UNAVAILABLE', 'no source has the collateral', {
      expected: `one of: ${names || 'no source is configured'}`,
      actual: `none has ${key}`,
    });
  }

  #keep<Value>(key: string, kept: Kept<Value>): Collateral<Value> {
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

/** Whether a value is to be preferred to another where neither is current: not one from the future, and else the newer. */
function isBetter<Value>(
  { isCurrent: current, issued, order }: Wanted<Value>,
  value: Value,
  other: Value,
  now: Date,
): boolean {
  if (current(other)) return false;
  const [isIssued, otherIsIssued] = [issued(value) <= now, issued(other) <= now];
  return isIssued === otherIsIssued ? compareOrders(order(value), order(other)) > 0 : isIssued;
}

function digestOf({ document, issuerChain = '' }: IntelAnswer): string {
  return createHash('sha256').update(`${document.length}:`).update(document).update(issuerChain).digest('hex');
}
