import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, asJsonText, type JsonObject, optionalMember, parseJson } from '@sealpod/protocol/json';
import type { WorkloadImage } from './image/image.ts';
import { initdataAnnotation } from './initdata.ts';
import type { TemplateInManifest } from './kubernetes/manifests.ts';

/** What stood in a pod template before, so that it can be put back. */
const recordAnnotation = 'sealpod.io/transformed-from';
const maxRecordBytes = 256 * 1024;
const lists = ['initContainers', 'containers'] as const;

interface Before {
  /** Image by container, of those whose image was replaced. */
  readonly images: Readonly<Record<string, string>>;
  /** The initdata annotation, where there was one. */
  readonly initdata?: string;
}

/** Writes images by digest and initdata into a template, and a record of what was there before the first time. */
export function writeTransformed(
  found: TemplateInManifest,
  annotation: string,
  images: ReadonlyMap<string, WorkloadImage>,
): void {
  const { document, path, template } = found;
  const annotations = template.metadata?.annotations ?? {};
  const recorded = readRecord(annotations[recordAnnotation], found);
  const before: Record<string, string> = {};
  for (const list of lists) {
    for (const [index, container] of (template.spec?.[list] ?? []).entries()) {
      const reference = images.get(container.name)?.reference;
      if (reference === undefined) continue;
      const original = container.image === reference ? recorded?.images[container.name] : container.image;
      if (original !== undefined) before[container.name] = original;
      document.setIn([...path, 'spec', list, index, 'image'], reference);
    }
  }
  const initdata = recorded === undefined ? annotations[initdataAnnotation] : recorded.initdata;
  const record: Before = { images: before, ...(initdata === undefined ? {} : { initdata }) };
  document.setIn([...path, 'metadata', 'annotations', initdataAnnotation], annotation);
  document.setIn([...path, 'metadata', 'annotations', recordAnnotation], JSON.stringify(record));
}

/** @throws SealpodError USAGE for a record that is none */
export function restoreTemplate(found: TemplateInManifest): void {
  const { document, path, template } = found;
  const record = readRecord(template.metadata?.annotations?.[recordAnnotation], found);
  if (record === undefined) return;
  for (const list of lists) {
    for (const [index, { name }] of (template.spec?.[list] ?? []).entries()) {
      const image = record.images[name];
      if (image !== undefined) document.setIn([...path, 'spec', list, index, 'image'], image);
    }
  }
  const annotations = [...path, 'metadata', 'annotations'];
  document.deleteIn([...annotations, recordAnnotation]);
  if (record.initdata === undefined) document.deleteIn([...annotations, initdataAnnotation]);
  else document.setIn([...annotations, initdataAnnotation], record.initdata);
  // What was made for the annotations goes with them.
  for (const folder of [annotations, [...path, 'metadata']]) {
    if (isEmpty(document.getIn(folder))) document.deleteIn(folder);
  }
}

function isEmpty(node: unknown): boolean {
  const { items } = (node ?? {}) as { readonly items?: unknown };
  return Array.isArray(items) && items.length === 0;
}

function readRecord(text: string | undefined, { owner }: TemplateInManifest): Before | undefined {
  if (text === undefined) return undefined;
  const what = `${owner.kind} ${owner.metadata.name ?? ''}: annotation ${recordAnnotation}`;
  const record = asJsonObject(parseJson(text, { maxSize: maxRecordBytes, what, code: 'USAGE' }), what, 'USAGE');
  const initdata = optionalMember(record, 'initdata');
  return {
    images: imagesOf(asJsonObject(optionalMember(record, 'images') ?? {}, what, 'USAGE'), what),
    ...(initdata === undefined ? {} : { initdata: asJsonText(initdata, what, 'USAGE') }),
  };
}

function imagesOf(images: JsonObject, what: string): Record<string, string> {
  if (Object.hasOwn(images, '__proto__')) throw new SealpodError('USAGE', `${what} is no record of images`);
  return Object.fromEntries(Object.entries(images).map(([name, image]) => [name, asJsonText(image, what, 'USAGE')]));
}
