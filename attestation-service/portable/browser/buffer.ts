import { Buffer as Base } from 'buffer/';

/**
 * `Buffer` in the browser: the npm package of that name, which lacks one encoding of Node's, `base64url`.
 *
 * @module
 */
const from = Base.from.bind(Base) as (...values: readonly unknown[]) => Base;
const toText = Base.prototype.toString;

Base.from = ((value: unknown, ...rest: readonly unknown[]) =>
  rest[0] === 'base64url' ? from(value, 'base64') : from(value, ...rest)) as typeof Base.from;

Base.prototype.toString = function text(this: Base, encoding?: string, start?: number, end?: number): string {
  if (encoding !== 'base64url') return toText.call(this, encoding, start, end);
  return toText.call(this, 'base64', start, end).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');
};

export const Buffer = Base;
