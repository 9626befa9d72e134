import { expect, it } from 'vitest';
import { loadProvider } from './providers.ts';

const context = { podsDirectory: '/nonexistent/pods', stateDirectory: '/nonexistent/state', log: () => undefined };

it.each([
  ['template', 'yes'],
  ['agentTransport', 'none'],
  ['accelerator', 'none'],
  ['templates', true],
])('refuses the qemu option %s: %j, by name', async (option, value) => {
  const loaded = loadProvider({ name: 'qemu', [option]: value }, context);
  await expect(loaded).rejects.toMatchObject({
    code: 'USAGE',
    message: expect.stringContaining(`"provider.${option}"`),
  });
});
