// Usage, nodes, invitations and API keys in a real browser, with a node beside that editors type on.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { openWindow, startBrowser, visit } from '../harness/browser.mjs'
import { open } from '../harness/clients.mjs'
import { startDashboard } from '../harness/dashboard.mjs'
import { fill, follow, logIn, logInFirst, look, press, question } from '../harness/pages.mjs'
import { freshName, startDev } from '../harness/server.mjs'
import { until } from '../harness/until.mjs'

const PASSWORD = 'correct horse battery'
/** A node tells what an app holds with its next heartbeat, ten seconds from the last; the page asks every five. */
const SOON = { timeout: 40_000, deadlineMs: 40_000 }

let browser

before(async () => { browser = await startBrowser() })
after(() => browser?.close())

const count = async (page, gauge) => Number((await page.locator(`[data-gauge=${gauge}] [data-figure]`).first().innerText()).replaceAll(/\D/g, ''))

/** Points of a graph that have the line's colour. */
const inked = (page, index) => page.locator('.plot canvas').nth(index).evaluate((canvas) => {
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
  const [r, g, b] = getComputedStyle(document.documentElement).getPropertyValue('--chart').match(/\w\w/g).map((part) => parseInt(part, 16))
  let points = 0
  for (let at = 0; at < data.length; at += 4) if (Math.abs(data[at] - r) + Math.abs(data[at + 1] - g) + Math.abs(data[at + 2] - b) < 12) points += 1
  return points
})

test('the graphs of usage move while two editors type, and the map shows the node that drains', async (t) => {
  const dev = await startDev()
  try {
    const window = await openWindow(t, browser)
    const { page } = window
    await logIn(page, dev.dashboard, dev.owner)
    await page.locator('.tile').click()
    await follow(page, 'Graphs')
    const graph = page.getByRole('img', { name: /^Connections, last hour/ })
    await graph.waitFor()
    assert.match(await graph.getAttribute('aria-label'), /nothing was reported/)
    assert.equal(await inked(page, 0), 0)
    await look(page, 'usage-empty')

    const where = { url: dev.ws, name: freshName(), token: dev.token }
    const writers = [open(t, 'y-websocket 3.1.0', where), open(t, 'y-websocket 3.1.0', where)]
    await until('both are in', () => writers.every((writer) => writer.synced), { show: () => writers })
    let typed = 0
    const type = () => writers.forEach((writer) => writer.text.insert(0, String(typed++ % 10)))
    await until('the figures of the moment follow', async () => {
      type()
      return await count(page, 'connections') === 2 && await count(page, 'documents') === 1 && await count(page, 'ops') > 0
    }, { ...SOON, show: () => page.locator('.gauges').innerText() })
    await until('the graphs follow', async () => await inked(page, 0) > 50 && await inked(page, 2) > 20)
    assert.match(await graph.getAttribute('aria-label'), /highest 2, limit/)
    const before = await page.getByRole('img', { name: /^Changes a minute/ }).getAttribute('aria-label')
    await until('more typing is a higher line', async () => {
      type()
      return await page.getByRole('img', { name: /^Changes a minute/ }).getAttribute('aria-label') !== before
    }, SOON)
    await page.locator('.plot').first().hover()
    await look(page, 'usage')
    await question(page, 'The same as a table')
    await until('the table follows too, once it is open', async () => /\b2\s+1\s+\d/.test(await page.locator('table').innerText()), { show: () => page.locator('table').innerText() })
    assert.match(await page.locator('table').innerText(), /–/)
    await look(page, 'usage-table')
    for (const span of ['Day', 'Month', 'Year']) {
      await follow(page, span)
      await page.getByRole('img', { name: new RegExp(`^Connections, ${span.toLowerCase()}: highest 2`) }).waitFor()
    }
    await page.getByLabel('Where you are').getByRole('link', { name: 'Demo' }).click()
    assert.equal(await count(page, 'connections'), 2)
    await look(page, 'app-usage')
    await follow(page, 'Apps')
    await look(page, 'apps-usage')

    // Without JavaScript there is the table, and a link for new figures.
    const plain = (await openWindow(t, browser, { javaScriptEnabled: false })).page
    await logIn(plain, dev.dashboard, dev.owner)
    await plain.locator('.tile').click()
    await follow(plain, 'Graphs')
    assert.equal(await count(plain, 'connections'), 2)
    assert.match(await plain.locator('table').innerText(), /\b2\s+1\s+\d+/)
    await follow(plain, 'Load it again')
    await look(plain, 'usage-plain')

    const ops = await openWindow(t, browser)
    await logIn(ops.page, dev.dashboard, dev.operator)
    await follow(ops.page, 'Nodes')
    await ops.page.locator('.region.active').waitFor()
    await look(ops.page, 'nodes-map')
    for (const writer of writers) writer.stayAway()
    await question(ops.page, 'Drain')
    await ops.page.getByRole('button', { name: /^Drain / }).click()
    // From here on the page is not loaded again by us.
    await ops.page.locator('.region.draining').waitFor(SOON)
    await until('the last connection is gone, and the page says so', async () => /empty: it can be stopped/.test(await ops.page.locator('table').innerText()),
      { ...SOON, show: () => ops.page.locator('table').innerText() })
    await ops.page.getByRole('button', { name: /^Un-drain/ }).waitFor(SOON)
    await look(ops.page, 'nodes-map-draining')

    // Whatever the browser complains of, such as a style that the policy forbids.
    assert.deepEqual([...window.errors, ...ops.errors], [])
  } finally {
    await dev.stop()
  }
})

test('who is invited opens the link of the mail, makes an account and is in; an API key works until it is revoked', async (t) => {
  const dashboard = await startDashboard()
  try {
    const window = await openWindow(t, browser)
    const { page } = window
    const { tenant, oneTimePassword: password } = await dashboard.admin('create-tenant', 'Acme', '--owner', 'ada@example.com', '--approve')
    await logInFirst(page, dashboard.issuer, { email: 'ada@example.com', password }, PASSWORD)
    await visit(page, `${dashboard.issuer}/tenants/${tenant}/members`)
    await fill(page, { 'E-mail address': 'ada@example.com' })
    await press(page, 'Invite')
    assert.match(await page.locator('#error-email').innerText(), /is a member already/)
    await look(page, 'members-refused')
    await fill(page, { 'E-mail address': 'grace@example.com' })
    await page.getByLabel('Role', { exact: true }).selectOption('admin')
    await press(page, 'Invite')
    await page.getByText('The mail is out.').waitFor()
    await look(page, 'members-invited')

    const [link] = /http\S+\/invitation#\S+/.exec(await dashboard.letterTo('grace@example.com'))
    const guest = await openWindow(t, browser)
    const asked = []
    guest.page.on('request', (request) => asked.push(request.url()))
    await visit(guest.page, link)
    await guest.page.getByRole('heading', { name: 'Join Acme' }).waitFor()
    assert.ok(!guest.page.url().includes('wsi_') && !asked.some((url) => url.includes('wsi_')), 'the code is in no URL')
    await look(guest.page, 'invitation')
    await fill(guest.page, { 'Your name': 'Grace Hopper', Password: 'short' })
    await press(guest.page, 'Join Acme')
    assert.match(await guest.page.locator('#error-password').innerText(), /too short/)
    await look(guest.page, 'invitation-refused')
    await fill(guest.page, { Password: PASSWORD })
    await press(guest.page, 'Join Acme')
    await guest.page.getByText('Welcome. You are a member now.').waitFor()

    // Without JavaScript the code is pasted; it is spent by now.
    const plain = (await openWindow(t, browser, { javaScriptEnabled: false })).page
    await visit(plain, link)
    await look(plain, 'invitation-code')
    await fill(plain, { 'The invitation\'s code': link.split('#')[1] })
    await press(plain, 'Go on')
    assert.match(await plain.locator('#error-code').innerText(), /ask for a new one/)

    await follow(guest.page, 'API keys')
    await look(guest.page, 'api-keys-empty')
    await fill(guest.page, { 'What it is for': 'Deployment' })
    await press(guest.page, 'Make the key')
    const key = await guest.page.locator('#api-key').innerText()
    await look(guest.page, 'api-key')
    const call = () => fetch(`${dashboard.issuer}/api/v1/tenants/${tenant}/apps`, { headers: { authorization: `Bearer ${key}` } })
    assert.equal((await call()).status, 200)
    await follow(guest.page, 'I have copied it')
    assert.match(await guest.page.locator('table').innerText(), /in the last hour/)
    await fill(guest.page, { 'What it is for': 'Nightly report', 'Good until': '2020-01-01' })
    await press(guest.page, 'Make the key')
    assert.match(await guest.page.locator('#error-until').innerText(), /today/)
    await look(guest.page, 'api-keys-refused')
    await question(guest.page, 'Revoke')
    await look(guest.page, 'api-keys-question')
    await press(guest.page, 'Revoke Deployment')
    await guest.page.getByText('The key is revoked').waitFor()
    assert.equal((await call()).status, 401)
    await look(guest.page, 'api-keys')

    const errors = [...window.errors, ...guest.errors].filter((text) => !/status of 422/.test(text))
    assert.deepEqual(errors, [])
  } finally {
    await dashboard.stop()
  }
})
