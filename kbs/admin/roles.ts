import type { AdminRole } from '@sealpod/kbs-client/token';

/** What an administrator may want to do, by endpoint and method. */
export type AdminAction =
  | 'resource:write'
  | 'resource:list'
  | 'policy:write'
  | 'policy:read'
  | 'policy:test'
  | 'reference-value:write'
  | 'reference-value:read'
  | 'reference-value:approve'
  | 'token-key:read'
  | 'token-key:rotate'
  | 'decision:read'
  | 'status:read';

const operatorActions: readonly AdminAction[] = [
  'resource:write',
  'resource:list',
  'policy:write',
  'policy:read',
  'policy:test',
  'reference-value:write',
  'reference-value:read',
  'reference-value:approve',
  'token-key:read',
  'token-key:rotate',
  'status:read',
];
const auditorActions: readonly AdminAction[] = ['decision:read', 'token-key:read', 'status:read'];

/** Whether a role may do something. Anything not named here is refused. */
export function mayAct(role: AdminRole, action: AdminAction): boolean {
  if (role === 'owner') return true;
  return (role === 'operator' ? operatorActions : auditorActions).includes(action);
}

/** Whether a key limited to `limit` may sign tokens that claim `role`. */
export function mayClaim(limit: AdminRole, role: AdminRole): boolean {
  return limit === 'owner' || limit === role;
}
