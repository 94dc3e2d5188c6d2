// Bundles assets/ into dist/: dist/<source>/<name with the content's hash>, and last dist/complete, which tells build.rs
// that dist is whole.
import { build } from 'esbuild'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.dirname(fileURLToPath(import.meta.url))
const dist = path.join(root, 'dist')
// The bundler leaves comments out; what the licence asks for stays.
const UPLOT = '/* with uPlot, https://github.com/leeoniya/uPlot, Copyright (c) Leon Sorokin, MIT licence */'

await rm(dist, { recursive: true, force: true })
await mkdir(dist, { recursive: true })
for (const source of ['style.css', 'app.js', 'icon.svg', 'usage.css', 'usage.js']) {
  await build({
    absWorkingDir: root,
    entryPoints: [path.join(root, 'assets', source)],
    outdir: path.join(dist, source),
    entryNames: '[name]-[hash]',
    bundle: true,
    minify: true,
    format: 'esm',
    target: ['es2022', 'chrome111', 'firefox113', 'safari16.4'],
    loader: { '.svg': 'copy' },
    legalComments: 'none',
    banner: source.startsWith('usage.') ? { js: UPLOT, css: UPLOT } : {},
    logLevel: 'warning'
  })
}
await writeFile(path.join(dist, 'complete'), '')
