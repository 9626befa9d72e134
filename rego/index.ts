/**
 * The Rego v1 engine: regorus as WebAssembly, in worker threads, with limits.
 *
 * Files a bundle needs beside it: `rego-worker.mjs` (worker.ts, bundled) and `regorus.wasm`.
 *
 * @module
 */
export {
  createRegoEngine,
  RegoEngine,
  type RegoEngineOptions,
  type RegoEvaluation,
  type RegoResult,
} from './engine.ts';
export { maxNestingDepth, nestingDepth } from './nesting.ts';
export { type PolicySource, readPolicySource, unknownFunctions } from './source.ts';
