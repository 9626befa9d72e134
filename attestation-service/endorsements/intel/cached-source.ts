import { asJsonObject, optionalMember, parseJson, stringMember } from '@sealpod/protocol/json';
import type { Storage } from '@sealpod/storage';
import { storedAnswers } from '../stored-answers.ts';
import type { IntelAnswer, IntelCollateralSource } from './source.ts';

/** How long an answer is used before the service is asked again. Intel signs anew each day, for thirty days. */
const lifetime = 6 * 3_600_000;

/** Keeps what a service answered in storage; `channel` keeps apart what differs by more than its name, as `early`. */
export function cachedSource(
  source: IntelCollateralSource,
  channel: string,
  storage: Storage,
  now: () => Date,
): IntelCollateralSource {
  const stored = storedAnswers(storage, 'collateral-intel', now);
  const { pckChain } = source;
  const keptFor = (lifetimeMs: number): IntelCollateralSource => {
    const ask = async (
      key: string,
      fetch: () => Promise<IntelAnswer | undefined>,
    ): Promise<IntelAnswer | undefined> => {
      const kept = await stored(`${channel}/${key}`, lifetimeMs, async () => {
        const fetched = await fetch();
        return fetched && encode(fetched);
      });
      return kept && decode(kept);
    };
    return {
      name: source.name,
      tcbInfo: (tee, fmspc) => ask(`tcb/${tee}/${fmspc}`, () => source.tcbInfo(tee, fmspc)),
      qeIdentity: (tee) => ask(`qe/${tee}`, () => source.qeIdentity(tee)),
      pckRevocationList: (authority) => ask(`crl/${authority}`, () => source.pckRevocationList(authority)),
      rootRevocationList: () => ask('crl/root', () => source.rootRevocationList()),
      ...(pckChain === undefined ? {} : { pckChain }),
    };
  };
  return { ...keptFor(lifetime), renewed: keptFor(0) };
}

function encode({ document, issuerChain }: IntelAnswer): Buffer {
  return Buffer.from(
    JSON.stringify({ document: document.toString('base64'), ...(issuerChain ? { issuerChain } : {}) }),
  );
}

function decode(kept: Buffer): IntelAnswer {
  const object = asJsonObject(parseJson(kept, { what: 'kept collateral' }), 'kept collateral');
  const chain = optionalMember(object, 'issuerChain');
  return {
    document: Buffer.from(stringMember(object, 'document'), 'base64'),
    ...(typeof chain === 'string' ? { issuerChain: chain } : {}),
  };
}
