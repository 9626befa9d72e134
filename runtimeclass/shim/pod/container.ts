import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { type ContainerKind, containerKind } from '../oci/annotations.ts';
import type { ProcessSpecification, Specification } from '../oci/specification.ts';
import type { GuestProcess } from './process.ts';

/** A container of the pod: its specification, its first process, and processes added by exec. */
export interface Container {
  readonly id: string;
  readonly bundle: string;
  readonly kind: ContainerKind;
  readonly specification: Specification;
  readonly process: GuestProcess;
  readonly execs: Map<string, { readonly process: GuestProcess; readonly specification: ProcessSpecification }>;
  /** The guest was told to remove it; set once, at the exit of the first process or at Delete. */
  removal: Promise<void> | undefined;
}

/** Reads config.json of a bundle. @throws SealpodError REQUEST_FORMAT when it is missing or no JSON object. */
export function readSpecification(bundle: string): { specification: Specification; kind: ContainerKind } {
  const path = join(bundle, 'config.json');
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(path, 'utf8'));
  } catch (cause) {
    throw new SealpodError('REQUEST_FORMAT', `${path} cannot be read as JSON: ${String(cause)}`, { cause });
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
    throw new SealpodError('REQUEST_FORMAT', `${path} is not a JSON object`);
  }
  // The members are read one by one by code that takes every one of them as optional.
  const specification = parsed as Specification;
  return { specification, kind: containerKind(specification) };
}
