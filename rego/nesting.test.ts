import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { nestingDepth } from './nesting.ts';

describe('nesting depth', () => {
  it.each([
    ['package p\n', 0],
    ['x := [1, [2, {"a": (3)}]]', 4],
    ['x := "[[[["\ny := [1]', 1],
    ['x := "\\"[[["\ny := (1)', 1],
    ['x := "\\\\"\ny := [[1]]', 2],
    ['x := `[[[\n[[`\ny := [1]', 1],
    ['# [[[[\ny := {1}', 1],
    [']]]][', 1],
    ['x := "[[[[', 0],
    ['x := "unclosed\n[[[', 3],
  ])('%j is %i', (policy, depth) => {
    expect(nestingDepth(policy)).toBe(depth);
  });

  it('counts nested literals of any depth', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(['[', ']'], ['{', '}'], ['(', ')'])), (brackets) => {
        const text =
          brackets.map(([open]) => open).join(' ') +
          brackets
            .toReversed()
            .map(([, close]) => close)
            .join('"(" ');
        expect(nestingDepth(text)).toBe(brackets.length);
      }),
    );
  });
});
