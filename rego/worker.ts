/**
 * Entry of the worker thread: one request at a time, one reply each, in order.
 *
 * @module
 */
import { parentPort, workerData } from 'node:worker_threads';
import { Evaluator } from './evaluator.ts';
import type { WorkerSettings, WorkRequest } from './messages.ts';

if (parentPort === null) throw new Error('this file runs in a worker thread');
const port = parentPort;
const evaluator = new Evaluator(workerData as WorkerSettings);
port.on('message', (request: WorkRequest) => port.postMessage(evaluator.run(request)));
port.postMessage('ready');
