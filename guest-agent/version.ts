/** Release of this guest agent. */
export const version = '0.1.0';
