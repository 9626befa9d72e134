/** A process of its own that spends nonces: for each number it claims the nonce if nobody has, and prints what it won. */

import { SealpodError } from '@sealpod/protocol/errors';
import { openStorage } from '@sealpod/storage';

const [path = '', count = '0'] = process.argv.slice(2);
const storage = await openStorage({ path, sweepIntervalMs: 0 });
const won: number[] = [];
for (let nonce = 0; nonce < Number(count); nonce += 1) {
  try {
    await storage.transaction(async (transaction) => {
      await transaction.put('spent', String(nonce), String(process.pid), { expectedVersion: 0 });
      await transaction.append('spending', JSON.stringify({ nonce, process: process.pid }), { key: String(nonce) });
    });
    won.push(nonce);
  } catch (thrown) {
    if (!(thrown instanceof SealpodError) || thrown.code !== 'STORAGE_CONFLICT') throw thrown;
  }
}
await storage.close();
console.log(JSON.stringify(won));
