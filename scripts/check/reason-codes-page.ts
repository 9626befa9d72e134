import { type ReasonCode, reasonCodes } from '@sealpod/protocol/reason-codes';

/** The page `docs/reference/reason-codes.md`, made from the table that all parts share. */
export function reasonCodesPage(): string {
  const rows = (Object.keys(reasonCodes) as ReasonCode[]).map((code) => {
    const [meaning, fix] = reasonCodes[code];
    return `| \`${code}\` | ${meaning} | ${fix} |`;
  });
  return `# Reason codes

Every refusal and failure carries one of these codes, whichever part it comes from. A guest, and so its host, is told the
code and a correlation id; an operator gets expected and actual values with \`sealpod explain <correlation id>\`.

| code | what happened | what to do first |
| --- | --- | --- |
${rows.join('\n')}
`;
}
