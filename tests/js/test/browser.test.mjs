// The playground and the Origin rule in a real browser.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { openWindow, screenshot, startBrowser, startSite, visit } from '../harness/browser.mjs'
import { freshName, startDev, startNode } from '../harness/server.mjs'
import { until } from '../harness/until.mjs'

let browser
let dev
let node

before(async () => {
  [browser, dev, node] = await Promise.all([startBrowser(), startDev(), startNode()])
})
after(() => Promise.all([browser?.close(), dev?.stop(), node?.stop()]))

/** Opens the playground on a document and waits until it is in sync. */
async function openPlayground (t, name, window) {
  const opened = await openWindow(t, browser, window)
  const { page } = opened
  await visit(page, `${dev.http}/playground?doc=${name}`)
  assert.ok(await page.getByTestId('status').count() > 0,
    'this build has no playground: run make playground, and build wiresocket again')
  await isSynced(page)
  return opened
}

function isSynced (page) {
  const status = page.getByTestId('status')
  return until('the page is synced', async () => await status.getAttribute('data-state') === 'synced', { show: () => status.innerText() })
}

async function shownText (page) {
  const lines = await page.locator('.cm-line').evaluateAll((elements) => elements.map((line) => line.textContent))
  // A caret's place is kept by a word joiner.
  return lines.join('\n').replaceAll('\u2060', '')
}

async function typeAt (page, where, words) {
  await page.bringToFront()
  await page.getByTestId('editor').click()
  await page.keyboard.press(where)
  await page.keyboard.type(words)
}

async function named (page, name) {
  await page.bringToFront()
  await page.getByTestId('name').fill(name)
}

function peopleCount (page, count) {
  return until(`the page says that ${count} are here`,
    async () => await page.getByTestId('people').getAttribute('data-count') === String(count),
    { show: () => page.getByTestId('people').innerText() })
}

test('two windows edit one document, and each sees the other’s text, name and caret', async (t) => {
  const name = freshName()
  const [left, right] = [await openPlayground(t, name), await openPlayground(t, name)]
  const pages = [left.page, right.page]
  await named(left.page, 'Ada')
  await named(right.page, 'Grace')
  await typeAt(left.page, 'Control+Home', '# Notes\n\nWritten by the **left** window.\n')
  const fromLeft = '# Notes\n\nWritten by the **left** window.\n'
  await until('the right window shows the left one’s text', async () => await shownText(right.page) === fromLeft,
    { show: () => shownText(right.page) })
  await typeAt(right.page, 'Control+End', 'And this by the right one.')
  for (const page of pages) {
    await until('both texts are shown', async () => await shownText(page) === `${fromLeft}And this by the right one.`,
      { show: () => shownText(page) })
    await peopleCount(page, 2)
  }
  for (const [{ page }, other] of [[left, 'Grace'], [right, 'Ada']]) {
    await page.bringToFront()
    const caret = page.getByTestId('peer-caret')
    await until(`${other}'s caret is shown`, async () => await caret.count() === 1 && await caret.getAttribute('data-name') === other)
    const box = await caret.boundingBox()
    assert.ok(box.height > 8, `a caret of ${box.height} px can be seen`)
  }
  await left.page.bringToFront()
  await screenshot(left.page, 'playground-desktop-left')
  await right.page.bringToFront()
  await screenshot(right.page, 'playground-desktop-right')
  await right.page.close()
  await peopleCount(left.page, 1)
  await until('the caret is gone, too', async () => await left.page.getByTestId('peer-caret').count() === 0)
  assert.deepEqual([...left.errors, ...right.errors], [])
})

test('both type at once and end with the same text', async (t) => {
  const name = freshName()
  const [one, two] = [await openPlayground(t, name), await openPlayground(t, name)]
  await typeAt(one.page, 'Control+Home', 'x')
  await until('the x is there', async () => await shownText(two.page) === 'x')
  await Promise.all([one.page.getByTestId('editor').pressSequentially('a'.repeat(40)), two.page.getByTestId('editor').pressSequentially('b'.repeat(40))])
  await until('both have the same 81 characters', async () => {
    const [first, second] = [await shownText(one.page), await shownText(two.page)]
    return first === second && first.length === 81
  }, { show: async () => [await shownText(one.page), await shownText(two.page)] })
})

test('a phone, 375 px wide, joins a desktop without scrolling sideways', async (t) => {
  const name = freshName()
  const desktop = await openPlayground(t, name)
  const phone = await openPlayground(t, name, { width: 375, height: 812, hasTouch: true, isMobile: true, deviceScaleFactor: 2 })
  await typeAt(desktop.page, 'Control+Home', 'Hello from the desk.\n')
  await phone.page.bringToFront()
  await phone.page.getByTestId('editor').tap()
  await phone.page.keyboard.press('Control+End')
  await phone.page.keyboard.type('Hello from the phone.')
  for (const { page } of [desktop, phone]) {
    await until('both texts are shown', async () => await shownText(page) === 'Hello from the desk.\nHello from the phone.',
      { show: () => shownText(page) })
  }
  await phone.page.bringToFront()
  const width = await phone.page.evaluate(() => document.documentElement.scrollWidth)
  assert.ok(width <= 375, `the page is ${width} px wide`)
  await screenshot(phone.page, 'playground-375px')
  assert.deepEqual([...desktop.errors, ...phone.errors], [])
})

test('a reload leaves the document and comes back to it', async (t) => {
  const name = freshName()
  const [reloading, home] = [await openPlayground(t, name), await openPlayground(t, name)]
  await typeAt(home.page, 'Control+Home', 'still here')
  await until('the text is there', async () => await shownText(reloading.page) === 'still here')
  await reloading.page.reload()
  await isSynced(reloading.page)
  await until('the text is there again', async () => await shownText(reloading.page) === 'still here')
  for (const { page } of [reloading, home]) await peopleCount(page, 2)
})

/** Opens a WebSocket from a page and says what the page can tell about its end, or that it got in. */
function connectFrom (page, url, token) {
  return page.evaluate(([url, token]) => new Promise((resolve) => {
    const socket = new WebSocket(url, ['access_token', token])
    socket.binaryType = 'arraybuffer'
    socket.onmessage = ({ data }) => resolve({ entered: true, protocol: socket.protocol, first: new Uint8Array(data)[0] })
    socket.onclose = ({ code, reason, wasClean }) => resolve({ entered: false, code, reason, wasClean })
  }), [url, token])
}

test('a page on a wrong Origin is refused with 4003 and can read code and reason; on the right one it gets in', async (t) => {
  const site = await startSite(t)
  const { page } = await openWindow(t, browser)
  await visit(page, site.url)
  const url = `${node.ws}/${freshName()}`

  const refused = await connectFrom(page, url, await node.mint({ allowed_domain_1: 'somewhere.example', allowed_domain_2: '127.0.0.1:1' }))
  assert.equal(refused.code, 4003)
  assert.match(refused.reason, /./)
  assert.equal(refused.wasClean, true)

  for (const claims of [{ allowed_domain_2: site.host }, {}]) {
    const entered = await connectFrom(page, url, await node.mint(claims))
    assert.deepEqual(entered, { entered: true, protocol: 'access_token', first: 0 })
  }
})

test('a page with an expired token can read that it is, with 4002', async (t) => {
  const site = await startSite(t)
  const { page } = await openWindow(t, browser)
  await visit(page, site.url)
  const refused = await connectFrom(page, `${node.ws}/${freshName()}`, await node.mint({ exp: 1_700_000_000 }))
  assert.deepEqual(refused, { entered: false, code: 4002, reason: 'Token expired', wasClean: true })
})
