// Bundles web/ into dist/: one script, one style sheet, hashed names, index.html last.
//
// index.html is written at the end on purpose: build.rs takes its presence to mean that dist is whole.
import { build } from 'esbuild'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.dirname(fileURLToPath(import.meta.url))
const web = path.join(root, 'web')
const dist = path.join(root, 'dist')
const BASE = '/playground/'

await rm(dist, { recursive: true, force: true })
await mkdir(dist, { recursive: true })

const result = await build({
  absWorkingDir: root,
  entryPoints: ['main.js', 'theme.js', 'style.css', 'icon.svg'].map((file) => path.join(web, file)),
  outdir: dist,
  entryNames: '[name]-[hash]',
  bundle: true,
  minify: true,
  format: 'esm',
  target: ['es2022', 'chrome111', 'firefox113', 'safari16.4'],
  loader: { '.svg': 'copy' },
  legalComments: 'none',
  metafile: true,
  logLevel: 'warning'
})

refuseSecondYjs(Object.keys(result.metafile.inputs))

const assets = new Map()
for (const [output, { entryPoint, inputs, bytes }] of Object.entries(result.metafile.outputs)) {
  const source = entryPoint ?? Object.keys(inputs)[0]
  assets.set(path.basename(source), path.basename(output))
  console.log(`${path.basename(output).padEnd(28)} ${(bytes / 1024).toFixed(1).padStart(7)} KiB`)
}

const template = await readFile(path.join(web, 'index.html'), 'utf8')
const page = template.replaceAll(/%([\w.]+)%/g, (_, name) => {
  const file = assets.get(name)
  if (file === undefined) throw new Error(`web/index.html names %${name}%, which the build did not produce`)
  return BASE + file
})
await writeFile(path.join(dist, 'index.html'), page)

// Two copies of Yjs in one page fail in ways that look like lost edits: constructor checks between them don't hold.
function refuseSecondYjs (inputs) {
  const copies = new Set(inputs
    .map((file) => /^(.*node_modules\/yjs)\//.exec(file)?.[1])
    .filter((folder) => folder !== undefined))
  const entries = inputs.filter((file) => /node_modules\/yjs\/dist\/yjs\.(mjs|cjs)$/.test(file))
  if (copies.size !== 1 || entries.length !== 1) {
    throw new Error(`the bundle must hold yjs exactly once, but it holds: ${entries.join(', ') || 'none'}`)
  }
}
