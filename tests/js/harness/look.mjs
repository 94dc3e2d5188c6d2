// Pictures of pages, and what a picture can't show.
import assert from 'node:assert/strict'
import { screenshot } from './browser.mjs'

const WIDTHS = [1280, 375]

/** Keeps pictures of the page at two widths, in light and dark; it must not scroll sideways, and every field has a label. */
export async function look (page, name) {
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
