import { defineConfig } from 'vitest/config';

const exclude = ['**/node_modules/**', '**/dist/**', '**/target/**'];

export default defineConfig({
  test: {
    // Vite transforms nothing that Node's own type stripping would refuse: the sources are erasable TypeScript.
    reporters: ['default', './test/count-reporter.ts'],
    projects: [
      {
        test: {
          name: 'unit',
          include: ['**/*.test.ts'],
          exclude: [...exclude, 'test/**'],
          pool: 'forks',
          maxWorkers: 2,
          testTimeout: 30_000,
        },
      },
      {
        test: {
          name: 'cross',
          include: ['test/**/*.test.ts'],
          globalSetup: './test/kubernetes/installed-cluster.ts',
          exclude,
          pool: 'forks',
          // Real virtual machines, containerd and network namespaces: one file at a time.
          maxWorkers: 1,
          fileParallelism: false,
          // On a machine of unknown load one may fail for its time alone; the closing lines name each that was run twice, and why.
          retry: process.env['CI'] === undefined ? 0 : 1,
          testTimeout: 300_000,
          hookTimeout: 600_000,
        },
      },
    ],
  },
});
