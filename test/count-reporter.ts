import { relative } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import type { Reporter, TestModule } from 'vitest/node';

/** Lines of a failure's message that its line at the end repeats; the whole stands where the test ran. */
const messageLines = 24;

interface Failure {
  readonly message: string;
  /** Expected and actual, where an expectation was not met. */
  readonly diff?: string;
}

/**
 * Ends a run's output with what a reader of only its end needs: each reason for skipping with the number of tests a file
 * that it kept from running, each test that failed, with its message, also where it passed when it was run again, and the
 * closing line `N passed, N failed, N skipped`.
 */
export default class CountReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly Failure[]): void {
    const count = { passed: 0, failed: 0, skipped: 0 };
    const skipped = new Map<string, number>();
    const failed: string[] = [];
    const tell = (what: string, name: string, errors: readonly Failure[] = []) =>
      failed.push([`${what}: ${name}`, ...errors.map(indentedMessage)].join('\n'));
    const fail = (name: string, errors?: readonly Failure[]) => {
      count.failed += 1;
      tell('failed', name, errors);
    };
    for (const module of modules) {
      const file = relative(process.cwd(), module.moduleId);
      if (module.errors().length > 0) fail(file, module.errors());
      for (const suite of module.children.allSuites()) {
        if (suite.errors().length > 0) fail(`${file} > ${suite.fullName}`, suite.errors());
      }
      for (const test of module.children.allTests()) {
        const result = test.result();
        if (result.state === 'passed') {
          count.passed += 1;
          if (test.diagnostic()?.flaky) tell('passed when run again', `${file} > ${test.fullName}`, result.errors);
        } else if (result.state === 'skipped') {
          count.skipped += 1;
          const reason = `${file}: ${result.note ?? reasonInName(test.fullName)}`;
          skipped.set(reason, (skipped.get(reason) ?? 0) + 1);
        } else if (result.state === 'failed') fail(`${file} > ${test.fullName}`, result.errors);
        else fail(`${file} > ${test.fullName}`, [{ message: 'did not end' }]);
      }
    }
    for (const error of unhandledErrors) fail('an error outside of any test', [error]);
    for (const [reason, tests] of skipped) console.log(`skipped: ${reason}: ${tests}`);
    for (const failure of failed) console.log(failure);
    console.log(`${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped`);
  }
}

/** Suites that cannot run say so in their name: `… (skipped: reason) > …`. */
function reasonInName(name: string): string {
  return /\(skipped: (.*?)\)(?: >|$)/.exec(name)?.[1] ?? name;
}

function indentedMessage({ message, diff = '' }: Failure): string {
  const lines = stripVTControlCharacters(`${message}\n${diff}`.trim()).split('\n');
  return lines
    .slice(0, messageLines)
    .map((line) => `  ${line}`)
    .join('\n');
}
