// The whole way on a fresh database, as somebody takes it who tries the product: from sign-up in a browser to two editors
// in sync with tokens of the real token endpoint, and what an operator does to them while they type.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { decodeJwt, decodeProtectedHeader } from 'jose'
import * as openid from 'openid-client'
import { openWindow, startBrowser, visit } from '../harness/browser.mjs'
import { allSaved, allSynced, open, sameText } from '../harness/clients.mjs'
import { startDashboard } from '../harness/dashboard.mjs'
import { field, fill, follow, logInFirst, look, press, question } from '../harness/pages.mjs'
import { Proxy } from '../harness/proxy.mjs'
import { freshName, startNode } from '../harness/server.mjs'
import { defer, until } from '../harness/until.mjs'

const PASSWORD = 'correct horse battery'
const REGION = 'aws-eu-west-1'

let browser
let dashboard

before(async () => {
  // A rotation that takes 2 s to sign, so that a test can see it through.
  const keys = { jwks_max_age_s: 1, publish_before_s: 2 };
  [browser, dashboard] = await Promise.all([startBrowser(), startDashboard({ keys })])
})
after(() => Promise.all([browser?.close(), dashboard?.stop()]))

/** A node of the dashboard's fleet; it goes when the test ends. */
async function join (t, secret, name) {
  const node = await startNode({
    node: { name, region: REGION },
    auth: { issuer: dashboard.issuer, jwks_url: `${dashboard.issuer}/{tenantId}/.well-known/jwks` },
    dashboard: await dashboard.enrolment(secret, name)
  })
  defer(t, () => node.stop())
  return node
}

/** Every client writes a letter at a time, until `stop`, which says how long the text must be then. */
function typing (t, clients) {
  let length = clients[0].text.length
  const write = (client) => {
    client.text.insert(client.text.length, 'x')
    length += 1
  }
  const typists = clients.map((client) => setInterval(write, 20, client))
  const stop = () => {
    typists.forEach(clearInterval)
    return length
  }
  defer(t, stop)
  return stop
}

test('from sign-up to two editors in sync, and all that is done to them while they type', async (t) => {
  const { page, errors } = await openWindow(t, browser)
  const { page: operator, errors: operatorErrors } = await openWindow(t, browser)
  const app = {}
  const nodes = []
  let enrolmentSecret

  await t.test('sign up', async () => {
    await visit(page, `${dashboard.issuer}/signup`)
    await fill(page, { 'Company or project': 'Acme', 'Your name': 'Ada Lovelace', 'E-mail address': 'ada@example.com', Password: PASSWORD })
    await press(page, 'Sign up')
    await page.getByRole('heading', { name: 'Waiting for approval' }).waitFor()
  })

  await t.test('the operator approves, and enrols a node', async (t1) => {
    const oneTime = { email: 'ops@example.com', password: dashboard.operatorPassword }
    await logInFirst(operator, dashboard.issuer, oneTime, 'operators have long ones')
    await follow(operator, 'All tenants')
    await press(operator, 'Approve Acme')
    await operator.getByRole('status').waitFor()
    await follow(operator, 'Nodes')
    await fill(operator, { 'For how many nodes': '2' })
    await press(operator, 'Make an enrolment secret')
    enrolmentSecret = await operator.locator('#enrolment-secret').innerText()
    nodes.push(await join(t, enrolmentSecret, `eu-${nodes.length + 1}`))
  })

  await t.test('an app on the free plan, and its credentials', async () => {
    await page.reload()
    await follow(page, 'Make the first app')
    await fill(page, { Name: 'Notes' })
    await field(page, 'License region').selectOption(REGION)
    await press(page, 'Make the app')
    app.clientId = await page.locator('#client-id').innerText()
    app.clientSecret = await page.locator('#client-secret').innerText()
    await follow(page, 'I have copied it: choose a plan')
    await press(page, 'Choose Free')
    await page.getByRole('heading', { name: 'Notes' }).waitFor()
    app.url = page.url().replace(/\?.*/, '')
  })

  const options = { algorithm: 'oauth2', execute: [openid.allowInsecureRequests] }
  const client = () => openid.discovery(new URL(dashboard.issuer), app.clientId, app.clientSecret, undefined, options)
  const tokens = async () => openid.clientCredentialsGrant(await client(), { scope: 'WireSocket.API offline_access' })
  let first
  let editors
  let proxy
  const name = freshName()

  await t.test('a token, and two editors in sync', async () => {
    first = await tokens()
    proxy = await Proxy.start(t, nodes[0])
    editors = ['y-websocket 3.1.0', 'hocuspocus 4.8.0'].map((kind) => open(t, kind, { url: proxy.ws, name, token: first.access_token }))
    await allSynced(editors)
    editors[0].text.insert(0, 'hello ')
    await sameText(editors, 6)
    editors[1].text.insert(6, 'world')
    await sameText(editors, 11)
  })

  await t.test('the usage graph moves while they type', async (t1) => {
    await visit(page, `${app.url}/usage`)
    const graph = page.getByRole('img', { name: /^Changes a minute, last hour/ })
    await graph.waitFor()
    const still = await graph.getAttribute('aria-label')
    const stop = typing(t1, editors)
    await until('the graph follows', async () => await graph.getAttribute('aria-label') !== still, { deadlineMs: 40_000 })
    await until('two connections are there', async () => await page.locator('[data-gauge=connections] [data-figure]').first().innerText() === '2', { deadlineMs: 40_000 })
    await look(page, 'journey-usage')
    await sameText(editors, stop())
  })

  await t.test('the key is rotated while they type: nobody drops', async (t1) => {
    const stop = typing(t1, editors)
    const kid = decodeProtectedHeader(first.access_token).kid
    const tenant = page.url().match(/tenants\/([^/]+)/)[1]
    await visit(page, `${dashboard.issuer}/tenants/${tenant}/keys`)
    await question(page, 'Rotate the key')
    await press(page, 'Rotate it now')
    await page.getByText('rotation under way').waitFor()
    const { access_token: token } = await until('tokens are signed with the new key', async () => {
      const next = await tokens()
      return decodeProtectedHeader(next.access_token).kid !== kid && next
    }, { deadlineMs: 60_000 }) // keys are seen to every 30 s
    const [newcomer, late] = [token, first.access_token].map((token) => open(t1, 'y-websocket 3.1.0', { url: nodes[0].ws, name, token }))
    await allSynced([newcomer, late])
    await sameText([...editors, newcomer, late], stop())
    await allSaved(editors)
    assert.deepEqual(editors.map(({ closes, denials }) => [...closes, ...denials]), [[], []])
  })

  await t.test('a new secret: the old one and its refresh tokens are dead', async () => {
    await visit(page, app.url)
    await question(page, 'Regenerate the secret')
    await press(page, 'Regenerate it now')
    const secret = await page.locator('#client-secret').innerText()
    assert.notEqual(secret, app.clientSecret)
    await assert.rejects(tokens(), /WWW-Authenticate/) // RFC 6749, 5.2: invalid_client
    const withoutSecret = await openid.discovery(new URL(dashboard.issuer), app.clientId, undefined, openid.None(), options)
    await assert.rejects(openid.refreshTokenGrant(withoutSecret, first.refresh_token), { error: 'invalid_grant' })
    app.clientSecret = secret
    await tokens()
  })

  await t.test('a second free app is refused, by name', async () => {
    await visit(page, `${dashboard.issuer}${new URL(app.url).pathname.replace(/[^/]+$/, 'new')}`)
    await fill(page, { Name: 'Drafts' })
    await field(page, 'License region').selectOption(REGION)
    await press(page, 'Make the app')
    await follow(page, 'I have copied it: choose a plan')
    assert.match(await page.locator('.taken').innerText(), /^Taken: Notes has the free plan/)
    assert.equal(await page.getByRole('button', { name: 'Choose Free', exact: true }).count(), 0)
    await look(page, 'journey-second-free')
  })

  await t.test('an upgrade, with the proration shown before, and its limits in the next token', async () => {
    const lines = () => page.locator('table.bill').first().locator('tbody tr').allInnerTexts()
    await visit(page, `${app.url}/plan`)
    await follow(page, 'Choose Starter')
    await press(page, 'Confirm and be charged $29.00')
    await page.getByRole('heading', { name: /^Invoice 1/ }).waitFor()
    await visit(page, `${app.url}/plan`)
    await follow(page, 'Choose Pro')
    await page.getByRole('heading', { name: 'Pro for Notes' }).waitFor()
    const shown = await lines()
    assert.match(shown.join('\n'), /Starter, unused from .*seconds\s+−\$2[89]\.\d\d/s)
    await look(page, 'journey-upgrade')
    await press(page, 'Confirm Pro')
    await page.getByText('The plan is changed.').waitFor()
    const { access_token: token } = await tokens()
    assert.equal(decodeJwt(token).limits.maxConnections, 10_000)
    assert.deepEqual(editors.map(({ closes, denials }) => [...closes, ...denials]), [[], []])
    const live = await until('the node counts against the new limit', async () => {
      const usage = await fetch(`${nodes[0].http}/usage`, { headers: { authorization: `Bearer ${first.access_token}` } })
      const { connections } = (await usage.json()).usage
      return connections.limit === 10_000 && connections
    })
    assert.equal(live.current, 2)
  })

  await t.test('a node is drained while they type: they go on at the other', async (t1) => {
    nodes.push(await join(t, enrolmentSecret, `eu-${nodes.length + 1}`))
    proxy.server = nodes[1]
    const stop = typing(t1, editors)
    await until('both nodes are active', async () => {
      await follow(operator, 'Nodes')
      return await operator.locator('.badge.active').count() === 2
    })
    const row = operator.locator('tr', { hasText: 'eu-1' })
    await question(row, 'Drain')
    await row.getByRole('button', { name: /^Drain / }).click()
    await until('both were told to go', () => editors.every(({ closes }) => closes.length > 0), { show: () => editors })
    assert.deepEqual(editors.map(({ closes }) => closes[0].code), [1012, 1012])
    await allSynced(editors)
    await sameText(editors, stop())
    await allSaved(editors)
    const discovered = await fetch(`${nodes[0].http}/discovery?documentName=${name}`, { headers: { authorization: `Bearer ${first.access_token}` } })
    assert.equal(new URL((await discovered.json()).url).port, new URL(nodes[1].ws).port)
  })

  assert.deepEqual([...errors, ...operatorErrors], [])
})
