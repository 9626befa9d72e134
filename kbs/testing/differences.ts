/** Where this key broker answers otherwise than the recorded upstream on purpose, and why. */
export interface Difference {
  readonly why: string;
  /** Our status; the recorded one where absent. */
  readonly status?: number;
  /** What our body must contain. */
  readonly body?: string;
  /** The request cannot be sent again by an HTTP client, or its answer holds nothing to compare. */
  readonly skip?: true;
}

const spent: Difference = {
  why: 'the first answer to a nonce spends it, right or wrong; upstream takes answers until one is right, and repeats its token for any later body',
  status: 401,
  body: 'RCAR handshake Attest failed',
};
const missing: Difference = {
  why: 'a missing resource is 404: clients stop there, where on 401 they would attest three times more',
  status: 404,
  body: 'Plugin internal error',
};
const encodedSlash: Difference = {
  why: 'a percent-encoded slash does not separate segments: upstream decodes before it splits, while its ACL reads the raw path',
  status: 401,
  body: 'Plugin internal error',
};
const foreignKey: Difference = {
  why: 'tokens verify under the keys of the own attestation service only; the recorded server ran with insecure_header_jwk',
  status: 401,
  body: 'Token Verifier error',
};
const badName: Difference = {
  why: 'ids that are path tricks are refused; upstream stores them',
  status: 401,
};

/** Recording → label of the exchange → difference. Each must be one: a difference that is none fails the test. */
export const differences: Readonly<Record<string, Readonly<Record<string, Difference>>>> = {
  'rcar/raw-auth': {
    'gzip content-encoding header on plain body': {
      why: 'content encodings are refused as such; upstream tries to decompress',
      status: 400,
      body: 'content encodings are not accepted',
    },
  },
  'rcar/raw-attest': {
    'attest twice, same body': spent,
    'attest again, other key and wrong evidence': spent,
    'other cookie before the right one': spent,
    'good at last, init-data member absent': spent,
    'and again': spent,
  },
  'rcar/raw-get-resource': {
    'RSA1_5: GET': {
      why: 'PKCS#1 v1.5 encryption is not offered; upstream serves it with a warning in its log',
      status: 401,
      body: 'JWE failed',
    },
    'GET resource/default/key/none': missing,
    'GET resource/default%2Fkey%2F1': encodedSlash,
    'GET resource/default/key%2F1': encodedSlash,
    'GET resource/default/key/1#frag': {
      why: 'a request target has no fragment (RFC 9112 section 3.2)',
      status: 400,
    },
    'FOO resource': { why: 'the HTTP parser refuses methods that are not registered', status: 400 },
  },
  'rcar/raw-token': {
    'other EC key, its jwk in header, exp 2126 (accepted)': foreignKey,
    'RSA signer RS256': foreignKey,
    'P-384 signer ES384': foreignKey,
    'Ed25519 signer': foreignKey,
    'without typ': foreignKey,
    'expired 30 s ago (leeway)': foreignKey,
    'nbf in the future': foreignKey,
    'other iss': foreignKey,
    'aud present': foreignKey,
    'tee-pubkey at /tee-pubkey': foreignKey,
    'tee-pubkey at /customized_claims/runtime_data/tee-pubkey': foreignKey,
    'tee-pubkey at /tdx/attester_runtime_data/tee-pubkey': foreignKey,
    'tee-pubkey at /tdx/attester_user_data/tee-pubkey': foreignKey,
  },
  'rcar/raw-routes': {
    'GET /metrics': { why: 'other metrics, and a content type', status: 200, body: 'kbs_http_requests_total' },
    'bad content-length': { why: 'an HTTP client cannot send it; server/listener.test.ts does', skip: true },
  },
  'rcar/raw-policy-data': { 'allow all, missing resource': missing },
  'rcar/raw-policies': {
    'resource: invalid UTF-8': {
      why: 'the decoder does not say where',
      status: 401,
      body: 'Failed to decode policy: invalid utf-8 sequence',
    },
    'attestation: id ../x': badName,
    'attestation: id with leading dot': badName,
    'attestation: id with leading slash': badName,
  },
  'rcar/raw-reference-values': { 'id ../x': badName },
  // Ids `a/b`, `..` and none.
  'rcar/cli-attestation-policy': { '#4': badName, '#6': badName, '#7': badName },
  'rcar/cli-get-resource-missing': { '#3': missing, '#6': missing },
};
