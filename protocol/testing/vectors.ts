import { join } from 'node:path';

/**
 * Path of a published evidence vector or a recorded exchange. They are not part of the repository: they lie beside it in
 * `shared/vectors`, or where `SEALPOD_VECTORS` says. A test that needs one says so and skips where it is absent.
 */
export function vectorPath(...names: readonly string[]): string {
  return join(process.env['SEALPOD_VECTORS'] ?? join(import.meta.dirname, '../../../shared/vectors'), ...names);
}
