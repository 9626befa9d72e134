/**
 * Writes the portable verifiers as one ES module for browsers:
 *
 *   node attestation-service/scripts/build-portable.ts FILE
 *
 * @module
 */
import { writeFileSync } from 'node:fs';
import { bundlePortable } from '../portable/bundle.ts';

const [file] = process.argv.slice(2);
if (file === undefined) {
  process.stderr.write('usage: node attestation-service/scripts/build-portable.ts FILE\n');
  process.exitCode = 2;
} else {
  const text = await bundlePortable();
  writeFileSync(file, text);
  process.stdout.write(`${file}: ${Buffer.byteLength(text)} bytes\n`);
}
