// What a person does on a page, and looking at it: a picture of each page at two widths in light and dark, and what a
// picture can't show.
import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { screenshot, visit } from './browser.mjs'

const WIDTHS = [1280, 375]

/** What an authenticator app shows (RFC 6238), so many steps from now. */
export function totp (secret, steps = 0) {
  const bits = [...secret].map((letter) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(letter).toString(2).padStart(5, '0')).join('')
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)))
  const counter = Buffer.alloc(8)
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + steps))
  const tag = createHmac('sha1', key).update(counter).digest()
  const number = tag.readUInt32BE(tag.at(-1) & 15) & 0x7fffffff
  return String(number % 1_000_000).padStart(6, '0')
}

/** Keeps pictures of the page, and checks what a picture can't show. */
export async function look (page, name) {
  // A click that leads to another page returns when that one begins.
  await page.waitForFunction(() => document.documentElement && document.readyState === 'complete')
  const shown = page.viewportSize()
  for (const width of WIDTHS) {
    await page.setViewportSize({ width, height: 800 })
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
    assert.ok(overflow <= 0, `${name} is ${overflow} px wider than a window of ${width}`)
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
      await screenshot(page, `dashboard-${name}-${width}-${colorScheme}`, { fullPage: true })
    }
  }
  await page.emulateMedia({ colorScheme: null, reducedMotion: null })
  await page.setViewportSize(shown)
  const flaws = await page.evaluate(() => {
    const flaws = []
    for (const field of document.querySelectorAll('input:not([type=hidden]), select, textarea')) {
      if (field.labels.length === 0 && !field.getAttribute('aria-label') && !field.hasAttribute('aria-hidden')) flaws.push(`no label: ${field.outerHTML}`)
    }
    for (const id of new Set([...document.querySelectorAll('[id]')].map((element) => element.id))) {
      if (document.querySelectorAll(`#${CSS.escape(id)}`).length > 1) flaws.push(`twice: #${id}`)
    }
    if (document.querySelectorAll('main').length !== 1 || document.querySelectorAll('h1').length !== 1) flaws.push('not one main and one h1')
    if (!document.documentElement.lang || !document.title) flaws.push('no language or title')
    return flaws
  })
  assert.deepEqual(flaws, [], name)
}

export const field = (page, label) => page.getByLabel(label, { exact: true })
export const press = (page, name) => page.getByRole('button', { name, exact: true }).click()
/** The first of that name: the navigation may have it too. */
export const follow = (page, name) => page.getByRole('link', { name, exact: true }).first().click()
export const heading = (page, name) => page.getByRole('heading', { name, exact: true }).waitFor()
export const question = (page, name) => page.locator('summary', { hasText: name }).first().click()

export async function fill (page, values) {
  for (const [label, value] of Object.entries(values)) await page.getByLabel(label).first().fill(value)
}

export async function logIn (page, address, { email, password }) {
  await visit(page, `${address}/login`)
  await fill(page, { 'E-mail address': email, Password: password })
  await press(page, 'Log in')
}

/** The same with a one-time password, and one of his own in its place. */
export async function logInFirst (page, address, { email, password }, own) {
  await logIn(page, address, { email, password })
  await fill(page, { 'Present password': password, 'New password': own })
  await press(page, 'Save')
}
