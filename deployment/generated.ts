import { chartFiles } from './chart/chart.ts';
import { chartValuesPage, resourcesPage } from './chart/pages.ts';
import { chartSettings } from './values/chart.ts';

/** What `npm run generate` writes, by the path in the repository. */
export function generatedFiles(): ReadonlyMap<string, string> {
  return new Map([
    ...[...chartFiles()].map(([path, content]): [string, string] => [`runtimeclass/chart/${path}`, content]),
    ['docs/reference/chart-values.md', chartValuesPage(chartSettings)],
    ['docs/reference/crds.md', resourcesPage()],
  ]);
}
