import { SealpodError } from '@sealpod/protocol/errors';

/** Segments of letters, digits, `_`, `-` and `.`, none beginning with a dot, joined by `/`. Upstream accepts a few stranger ones. */
const pattern = /^[A-Za-z0-9_-][A-Za-z0-9_.-]*(\/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*$/;

/** Checks an id of a policy or a reference value. @throws SealpodError REQUEST_FORMAT */
export function checkId(what: string, id: string): void {
  if (id.length > 256 || !pattern.test(id)) {
    throw new SealpodError('REQUEST_FORMAT', `${what} id is not valid`, {
      expected: 'at most 256 of A-Z a-z 0-9 _ - . / with no empty segment and none that begins with a dot',
      actual: id.slice(0, 64),
    });
  }
}
