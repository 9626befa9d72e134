/** The port at which node agents tell of their nodes, where the values do not say otherwise. */
export const healthPort = 9440;

/** What the parts of an installation are called by their labels. */
export const podsOf = (component: string): string =>
  `app.kubernetes.io/part-of=sealpod,app.kubernetes.io/component=${component}`;

/** What a failed request to the API server says: its own words, where the client has them. */
export function messageOf(error: unknown): string {
  const { body } = error as { body?: unknown };
  if (typeof body === 'string') {
    try {
      const { message } = JSON.parse(body) as { message?: string };
      if (message !== undefined) return message;
    } catch {
      return body.trim().replaceAll('\n', '; ').slice(0, 500);
    }
  }
  return (error instanceof Error ? error.message : String(error)).split('\n')[0] ?? '';
}
