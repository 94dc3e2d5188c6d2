// Chromium, as Debian packages it, driven by playwright-core: a fresh profile each time.
import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { createServer } from 'node:http'
import { fileURLToPath } from 'node:url'
import { chromium } from 'playwright-core'
import { defer } from './until.mjs'

const ARTIFACTS = fileURLToPath(new URL('../artifacts/', import.meta.url))
const QUIET = [
  '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'
]

function executable () {
  if (process.env.CHROMIUM) return process.env.CHROMIUM
  try {
    return execFileSync('sh', ['-c', 'command -v chromium'], { encoding: 'utf8' }).trim()
  } catch (cause) {
    throw new Error('there is no chromium: install it (apt-get install chromium), or say where it is with CHROMIUM', { cause })
  }
}

export function startBrowser () {
  return chromium.launch({ executablePath: executable(), args: QUIET })
}

/** A window that shares nothing with others of the same browser. What goes wrong in its pages fails the test. */
export async function openWindow (t, browser, { width = 1280, height = 800, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, ...options })
  const page = await context.newPage()
  const errors = []
  page.on('pageerror', (error) => errors.push(error.stack))
  page.on('console', (message) => {
    if (message.type() === 'error') errors.push(`${message.text()} (${message.location().url})`)
  })
  defer(t, () => context.close())
  return { page, errors }
}

/** Opens an address; if that doesn't end, the error says which requests have no answer, and what they answer outside the browser. */
export async function visit (page, url) {
  const unanswered = new Set()
  page.on('request', (request) => unanswered.add(request.url()))
  for (const over of ['requestfinished', 'requestfailed']) page.on(over, (request) => unanswered.delete(request.url()))
  try {
    await page.goto(url, { timeout: 20_000 })
  } catch (error) {
    const outside = await Promise.all([...unanswered].map((address) =>
      fetch(address, { signal: AbortSignal.timeout(5000) }).then(({ status }) => `${address} answers ${status}`, (cause) => `${address}: ${cause}`)))
    throw new Error(`${error.message}\nunanswered, and outside the browser:\n${outside.join('\n')}`)
  }
}

/** Saves what the page shows where CI keeps artefacts. */
export async function screenshot (page, name, options) {
  mkdirSync(ARTIFACTS, { recursive: true })
  await page.screenshot({ ...options, path: `${ARTIFACTS}${name}.png` })
}

/** An empty page on an origin of its own. */
export async function startSite (t) {
  const site = createServer((_, response) => {
    response.setHeader('content-type', 'text/html')
    response.end('<!doctype html><title>somebody’s site</title>')
  })
  await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve))
  defer(t, () => {
    site.closeAllConnections()
    site.close()
  })
  const host = `127.0.0.1:${site.address().port}`
  return { host, url: `http://${host}/` }
}
