/** All patterns of a row must occur in the text. Each takes linear time. */
const signs: readonly (readonly [what: string, ...patterns: RegExp[]])[] = [
  ['a private key', /-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----/],
  ['a private key', /"kty"[ \t]*:/, /"d"[ \t]*:[ \t]*"[A-Za-z0-9_-]{16,}"/],
  ['registry credentials', /"auths"[ \t]*:/, /"auth"[ \t]*:[ \t]*"[A-Za-z0-9+/]/],
  [
    'a password or key',
    /^[ \t]*(?:password|passwd|secret_access_key|private_key|api_key|client_secret)[ \t]*=[ \t]*["'][^"'\n]/im,
  ],
];

/**
 * Names what looks like a secret in a text that will be public, or undefined. The host, the cluster and the key broker all
 * read initdata, so a key that someone puts there is lost. A net for accidents, not a proof of absence.
 */
export function findSecret(text: string): string | undefined {
  return signs.find(([, ...patterns]) => patterns.every((pattern) => pattern.test(text)))?.[0];
}
