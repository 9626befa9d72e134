export {
  type CcaComponent,
  type CcaLifecycle,
  type CcaPlatform,
  ccaLifecycle,
} from './platform.ts';
export type { CcaRealm } from './realm.ts';
export { type CcaToken, parseCcaEvidence, parseCcaToken } from './token.ts';
