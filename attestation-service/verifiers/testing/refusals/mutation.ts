import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonValue } from '@sealpod/protocol/json';
import { failures, type Verdict } from '@sealpod/protocol/verdict';
import type { Expectations, Verifier } from '../../verifier.ts';

/** Genuine evidence with one thing changed; nothing else is wrong with it. */
export interface Mutation {
  readonly what: string;
  readonly evidence: JsonValue;
  /** What it is verified against instead. */
  readonly against?: { readonly [Name in keyof Expectations]?: Expectations[Name] | undefined };
  /** Verifies instead: one that was configured otherwise. */
  readonly by?: Verifier;
}

/** The mutations of one TEE. All evidence is minted under a test's own authorities. */
export interface MutatedTee {
  readonly tee: string;
  readonly verifier: Verifier;
  readonly expectations: Expectations;
  /** Accepted. */
  readonly genuine: JsonValue;
  readonly mutations: readonly Mutation[];
}

/** Check and code of everything that fails; the first is the code of the verdict. */
export async function refusalsOf(
  { verifier, expectations, genuine }: MutatedTee,
  { evidence, against, by = verifier }: Omit<Mutation, 'what'> = { evidence: genuine },
): Promise<readonly Pick<Verdict, 'check' | 'code'>[]> {
  try {
    const { verdict } = await by.verify(evidence, { ...expectations, ...against } as Expectations);
    return failures(verdict);
  } catch (thrown) {
    if (!(thrown instanceof SealpodError)) throw thrown;
    return [{ check: 'form of the evidence', code: thrown.code }];
  }
}

/** Text of an encoding with one bit of a byte changed. */
export function flipped(text: JsonValue | undefined, at: number, encoding: 'hex' | 'base64' | 'base64url'): string {
  return flippedBytes(Buffer.from(String(text), encoding), at).toString(encoding);
}

/** Bytes with one bit changed. */
export function flippedBytes(bytes: Buffer, at: number): Buffer {
  const changed = Buffer.from(bytes);
  changed[at] = (changed[at] ?? 0) ^ 1;
  return changed;
}
