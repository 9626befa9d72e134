import { createPrivateKey, createPublicKey, sign, verify } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { startTestKbs } from '../testing/kbs.ts';
import { type RecordedExchange, readRecording, recordingPath, replay } from '../testing/recordings.ts';

interface KeysAndTokens {
  readonly keys: Readonly<Record<string, { readonly private_pem: string; readonly public_pem: string }>>;
  readonly tokens: Readonly<Record<string, string>>;
}

const keysPath = recordingPath('admin/keys-and-tokens');

/** Where we differ on purpose: label → our status and what our text contains (absent: accepted). */
interface Difference {
  readonly why: string;
  readonly status: number;
  readonly detail?: string;
}

const rsa: Difference = {
  why: 'administrators sign with Ed25519 or EC P-256 only',
  status: 401,
  detail: 'Cannot verify token with any of the issuers',
};
const role: Difference = {
  why: 'roles are fixed sets of actions; upstream matches paths by regular expressions of the operator',
  status: 401,
  detail: 'not allowed for path',
};
const canonical: Difference = {
  why: 'the path that was decided on is named: decoded, without query',
  status: 401,
  detail: 'not allowed for path /kbs/v0/',
};

const differences: Readonly<Record<string, Readonly<Record<string, Difference>>>> = {
  'admin/built-in-endpoint': {
    rsa_jwks_admin: rsa,
    ed_nbf_future: { why: 'a token that is not valid yet is refused', status: 401, detail: 'Cannot verify token' },
    ec_admin_any_aud: { why: 'the audience is always checked', status: 401, detail: 'Cannot verify token' },
  },
  'admin/plugin-endpoint': {
    rsa_jwks_admin: rsa,
    ed_res_writer: role,
    'res-writer DELETE own': role,
    'res-writer path trick team-a/../team-b': {
      why: 'refused by role before the path is looked at',
      status: 401,
      detail: 'not allowed for path',
    },
    'res-writer percent-encoded team-a': canonical,
    'res-writer bad path after the check': role,
  },
  'admin/acl': {
    'rv-reader GET reference-value/svn': role,
    'rv-reader POST reference-value/svn': role,
    'rv-reader GET reference-value/svn?x=1': canonical,
    'rv-reader absolute-form target': canonical,
  },
};

/** The recorded token, as it would have to be for us: fresh dates where they were good, and our name for the highest role. */
function freshToken(recorded: string, { keys }: KeysAndTokens, now: number, recordedAt: number): string {
  const [head = '', body = '', signature = ''] = recorded.split('.');
  const decode = (text: string) => JSON.parse(Buffer.from(text, 'base64url').toString()) as Record<string, unknown>;
  let claims: Record<string, unknown>;
  let header: Record<string, unknown>;
  try {
    [header, claims] = [decode(head), decode(body)];
  } catch {
    return recorded;
  }
  if (claims['role'] === 'admin') claims['role'] = 'owner';
  claims['iat'] = now;
  if (typeof claims['exp'] === 'number') claims['exp'] = claims['exp'] > recordedAt ? now + 3600 : now - 3600;
  if (typeof claims['nbf'] === 'number') claims['nbf'] = claims['nbf'] > recordedAt ? now + 3600 : now - 3600;
  // The recorded server checked no audience for tokens of this issuer.
  if (claims['iss'] === 'issuer-ec' && claims['aud'] === undefined) claims['aud'] = 'kbs-admin';
  const input = `${head}.${Buffer.from(JSON.stringify(claims)).toString('base64url')}`;
  const signer = signerOf(recorded, keys);
  if (signer === undefined || header['alg'] === 'none') return `${input}.${signature}`;
  const key = createPrivateKey(signer);
  const isEd = key.asymmetricKeyType === 'ed25519';
  const fresh = sign(isEd ? null : 'sha256', Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' });
  return `${input}.${fresh.toString('base64url')}`;
}

/** The private key whose signature the recorded token carries, if it carries a good one. */
function signerOf(token: string, keys: KeysAndTokens['keys']): string | undefined {
  const [head = '', body = '', signature = ''] = token.split('.');
  const input = Buffer.from(`${head}.${body}`);
  return Object.values(keys).find(({ private_pem }) => {
    const key = createPublicKey(createPrivateKey(private_pem));
    const digest = key.asymmetricKeyType === 'ed25519' ? null : 'sha256';
    return verify(digest, input, { key, dsaEncoding: 'ieee-p1363' }, Buffer.from(signature, 'base64url'));
  })?.private_pem;
}

function shapeOf(answer: RecordedExchange['response'] | Awaited<ReturnType<typeof replay>>) {
  const { status, headers, body } = answer;
  const error = body.startsWith('{"type"') ? (JSON.parse(body) as Record<string, unknown>) : undefined;
  const kind =
    error === undefined
      ? body.replace(/"(nonce|token|protected)":"[^"]*".*/, '$1')
      : `${error['type']}: ${error['detail']}`;
  return { status, type: headers['content-type'], body: kind };
}

describe.each(['admin/built-in-endpoint', 'admin/plugin-endpoint', 'admin/acl'])('recorded exchanges of %s', (name) => {
  it('are answered as upstream, but for the differences that are listed', async (context) => {
    const recording = readRecording(name);
    if (recording === undefined || !existsSync(keysPath))
      return context.skip(`no recorded exchanges at ${recordingPath(name)}`);
    const file = JSON.parse(readFileSync(keysPath, 'utf8')) as KeysAndTokens;
    const directory = mkdtempSync(join(tmpdir(), 'sealpod-kbs-'));
    const key = (id: string, issuer: string) => {
      const publicKeyFile = join(directory, `${id}.pem`);
      writeFileSync(publicKeyFile, file.keys[id]?.public_pem ?? '');
      return { publicKeyFile, issuer, audience: 'kbs-admin' };
    };
    const keys = [key('ed25519', 'issuer-ed25519'), key('ec', 'issuer-ec')];
    const kbs = await startTestKbs({ admin: { keys } }, {}, directory);
    const now = Math.floor(Date.now() / 1000);
    const unmet: unknown[] = [];
    try {
      for (const { label, request, response } of recording.exchanges) {
        const recorded = request.headers.find(([header]) => header.toLowerCase() === 'authorization')?.[1];
        const token = /^Bearer (.+)$/.exec(recorded ?? '')?.[1];
        const replaced =
          token === undefined ? {} : { authorization: `Bearer ${freshToken(token, file, now, recording.recordedAt)}` };
        const ours = shapeOf(await replay(kbs.address, request, replaced));
        // Our name for upstream’s highest role; nothing else of a text may differ.
        const theirs = shapeOf(response);
        const difference = differences[name]?.[label];
        const expected =
          difference === undefined
            ? theirs
            : { ...ours, status: difference.status, body: expect.stringContaining(difference.detail ?? '') };
        if (difference !== undefined && JSON.stringify(ours) === JSON.stringify(theirs))
          unmet.push({ label, noDifference: true });
        try {
          expect(ours).toEqual(expected);
        } catch {
          unmet.push({ label, ours, theirs });
        }
      }
    } finally {
      await kbs.remove();
    }
    expect(unmet).toEqual([]);
    expect(recording.exchanges.length).toBeGreaterThan(10);
  });
});
