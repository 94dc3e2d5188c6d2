// The dashboard's pages in a real browser, on a fresh database: from sign-up to the audit log, with the real node beside.
//
// Each page is kept as a picture at two widths in light and dark, and must not scroll sideways at phone width.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import * as openid from 'openid-client'
import { openWindow, screenshot, startBrowser, visit } from '../harness/browser.mjs'
import { startDashboard } from '../harness/dashboard.mjs'
import { field, fill, follow, look, press, question, totp } from '../harness/pages.mjs'
import { startNode } from '../harness/server.mjs'
import { until } from '../harness/until.mjs'

const PASSWORD = 'correct horse battery'

let browser
let dashboard

before(async () => {
  [browser, dashboard] = await Promise.all([startBrowser(), startDashboard()])
})
after(() => Promise.all([browser?.close(), dashboard?.stop()]))

test('from sign-up to a token, a rotated key and the audit log', async (t) => {
  const window = await openWindow(t, browser)
  const ops = await openWindow(t, browser)
  const { page } = window
  const operator = ops.page

  await visit(page, dashboard.issuer)
  assert.equal(await page.title(), 'Log in · WireSocket')
  await look(page, 'login')
  await fill(page, { 'E-mail address': 'ada@example.com', Password: 'not the password' })
  await press(page, 'Log in')
  await page.getByRole('alert').waitFor()
  await look(page, 'login-refused')

  await follow(page, 'Sign up')
  await look(page, 'signup')
  await fill(page, { 'Company or project': 'Acme', 'Your name': 'Ada Lovelace', 'E-mail address': 'ada@example.com', Password: 'short' })
  await press(page, 'Sign up')
  assert.match(await page.locator('#error-password').innerText(), /too short/)
  assert.equal(await field(page, 'Your name').inputValue(), 'Ada Lovelace')
  await look(page, 'signup-refused')
  await fill(page, { Password: PASSWORD })
  await press(page, 'Sign up')
  await page.getByRole('heading', { name: 'Waiting for approval' }).waitFor()
  await look(page, 'waiting')

  // The operator: one-time password first, then the queue.
  await visit(operator, dashboard.issuer)
  await fill(operator, { 'E-mail address': 'ops@example.com', Password: dashboard.operatorPassword })
  await press(operator, 'Log in')
  await operator.getByRole('heading', { name: 'Choose a password' }).waitFor()
  await look(operator, 'one-time-password')
  await fill(operator, { 'Present password': dashboard.operatorPassword, 'New password': 'operators have long ones' })
  await press(operator, 'Save')
  await follow(operator, 'All tenants')
  await operator.getByText('Ada Lovelace').waitFor()
  await look(operator, 'queue')
  await press(operator, 'Approve Acme')
  await operator.getByRole('status').waitFor()
  await look(operator, 'all-tenants')
  await follow(operator, 'Nodes')
  await look(operator, 'nodes-empty')

  // The second factor, and logging in with it.
  await follow(page, 'ada@example.com')
  await look(page, 'account')
  await press(page, 'Set it up')
  const secret = await page.locator('#totp-secret').innerText()
  await look(page, 'second-factor')
  await fill(page, { 'The code that it shows now': totp(secret) })
  await press(page, 'Turn it on')
  await page.getByRole('heading', { name: 'The second factor is on' }).waitFor()
  await look(page, 'recovery-codes')
  await press(page, 'Log out')
  await fill(page, { 'E-mail address': 'ada@example.com', Password: PASSWORD })
  await press(page, 'Log in')
  await look(page, 'login-code')
  await fill(page, { Code: totp(secret, 1) }) // the present one is spent
  await press(page, 'Go on')

  // New recovery codes take the password.
  await page.getByRole('heading', { name: 'No apps yet' }).waitFor()
  await follow(page, 'ada@example.com')
  await question(page, 'Make new recovery codes')
  await page.locator('#field-codes_password').fill('not the password')
  await press(page, 'Make new codes')
  await page.locator('#error-codes_password').waitFor()
  await look(page, 'account-secured')
  await page.locator('#field-codes_password').fill(PASSWORD)
  await press(page, 'Make new codes')
  await page.getByText('The old ones are dead.').waitFor()
  await look(page, 'recovery-codes-new')
  await visit(page, dashboard.issuer)

  // An app on the free plan.
  await page.getByRole('heading', { name: 'No apps yet' }).waitFor()
  await look(page, 'apps-empty')
  await follow(page, 'Make the first app')
  await look(page, 'app-new')
  await fill(page, { Name: 'Notes', 'First domain': 'https://MyApp.com/notes' })
  await field(page, 'License region').selectOption('aws-eu-west-1')
  await press(page, 'Make the app')
  assert.match(await page.locator('#error-domain_1').innerText(), /path/)
  await look(page, 'app-new-refused')
  await fill(page, { 'First domain': 'https://MyApp.com/' })
  await press(page, 'Make the app')
  const clientId = await page.locator('#client-id').innerText()
  const clientSecret = await page.locator('#client-secret').innerText()
  await look(page, 'credentials')
  await follow(page, 'I have copied it: choose a plan')
  await look(page, 'plans')
  await press(page, 'Choose Free')
  await page.getByRole('heading', { name: 'Notes' }).waitFor()
  assert.ok(!(await page.content()).includes(clientSecret), 'the secret is shown once')
  await look(page, 'app')

  // A token for its client, which the inspector explains.
  const options = { algorithm: 'oauth2', execute: [openid.allowInsecureRequests] }
  const config = await openid.discovery(new URL(dashboard.issuer), clientId, clientSecret, undefined, options)
  const { access_token: token } = await openid.clientCredentialsGrant(config, { scope: 'WireSocket.API' })
  const tenant = page.url().match(/tenants\/([^/]+)/)[1]
  const jwks = createRemoteJWKSet(new URL(`${dashboard.issuer}/${tenant}/.well-known/jwks`))
  const { payload } = await jwtVerify(token, jwks, { issuer: dashboard.issuer, audience: 'WireSocket.API' })
  assert.equal(payload.allowed_domain_1, 'myapp.com')
  await follow(page, 'Token inspector')
  await look(page, 'inspector')
  await fill(page, { 'Access token': token, Origin: 'https://myapp.com' })
  await press(page, 'Inspect')
  await page.getByText('A node takes this token.').waitFor()
  await look(page, 'inspector-good')
  await fill(page, { Origin: 'https://evil.example' })
  await press(page, 'Inspect')
  await page.getByText('close code 4003').waitFor()
  await look(page, 'inspector-refused')

  // Domains: one more, so that the playground's page may connect.
  await follow(page, 'Apps')
  await page.locator('.tile').click()
  await follow(page, 'Edit name and domains')
  await fill(page, { 'Second domain': new URL(dashboard.issuer).host })
  await look(page, 'app-edit')
  await press(page, 'Save')
  await page.getByRole('status').waitFor()
  await follow(page, 'Quick start')
  assert.ok((await page.locator('#code-openid').innerText()).includes(clientId))
  await look(page, 'quick-start')

  // A node joins: the quick start names it, and the playground opens on it with a real token.
  await fill(operator, { 'For how many nodes': '1' })
  await press(operator, 'Make an enrolment secret')
  const enrolmentSecret = await operator.locator('#enrolment-secret').innerText()
  await look(operator, 'node-enrolment')
  const node = await startNode({
    auth: { issuer: dashboard.issuer, jwks_url: `${dashboard.issuer}/{tenantId}/.well-known/jwks` },
    dashboard: await dashboard.enrolment(enrolmentSecret)
  })
  try {
    await until('the node is in the registry', async () => {
      await follow(operator, 'Nodes')
      return await operator.locator('.badge.active').count() > 0
    })
    await look(operator, 'nodes')
    await page.reload()
    assert.match(await page.locator('#code-y').innerText(), /ws:\/\/127\.0\.0\.1:\d+/)
    await follow(page, 'Notes')
    await press(page, 'Open the playground')
    const status = page.getByTestId('status')
    await until('the playground is synced', async () => await status.getAttribute('data-state') === 'synced', { show: () => status.innerText() })
    assert.ok(!page.url().includes('token'), page.url())
    await screenshot(page, 'dashboard-playground-1280-light')
    await visit(page, `${dashboard.issuer}/tenants/${tenant}/keys`)
    await question(operator, 'Drain')
    await operator.getByRole('button', { name: /^Drain / }).click()
    await until('the node says that it drains', async () => {
      await follow(operator, 'Nodes')
      return await operator.locator('.badge.draining').count() > 0
    })
    await look(operator, 'nodes-draining')
  } finally {
    await node.stop()
  }

  // The key, the members, and all of it in the audit log.
  await question(page, 'Rotate the key')
  await look(page, 'keys-question')
  await press(page, 'Rotate it now')
  await page.getByText('rotation under way').waitFor()
  await look(page, 'keys')
  await follow(page, 'Members')
  await look(page, 'members')
  await follow(page, 'Tenants')
  await look(page, 'tenants')
  await page.locator('.tile').click()
  await follow(page, 'Audit')
  const log = await page.locator('table').innerText()
  for (const action of ['tenant.create', 'tenant.approve', 'key.create', 'app.create', 'subscription.create', 'app.update', 'key.rotate']) {
    assert.ok(log.includes(action), `${action} is in the audit log:\n${log}`)
  }
  await look(page, 'audit')
  await fill(page, { Action: 'app' })
  await press(page, 'Filter')
  const filtered = await page.locator('table').innerText()
  assert.ok(filtered.includes('app.update') && !filtered.includes('key.rotate'), filtered)
  await follow(operator, 'Audit of all')
  await look(operator, 'audit-of-all')
  await visit(page, `${dashboard.issuer}/tenants/00000000-0000-4000-8000-000000000000/apps`)
  await look(page, 'missing')

  // The one 404 and the 422s are expected; anything else that the browser complains of is not.
  const errors = [...window.errors, ...ops.errors].filter((text) => !/status of (404|422)/.test(text))
  assert.deepEqual(errors, [])
})

test('the pages work without JavaScript, and by keyboard', async (t) => {
  const { page } = await openWindow(t, browser, { javaScriptEnabled: false })
  await visit(page, `${dashboard.issuer}/login`)
  await page.keyboard.press('Tab')
  assert.equal(await page.locator(':focus').innerText(), 'Skip to the content')
  await visit(page, `${dashboard.issuer}/signup`)
  await field(page, 'Company or project').focus()
  for (const words of ['Globex', 'Grace Hopper', 'grace@example.com', PASSWORD]) {
    await page.keyboard.type(words)
    await page.keyboard.press('Tab')
  }
  await page.keyboard.press('Enter')
  await page.getByRole('heading', { name: 'Waiting for approval' }).waitFor()
  await press(page, 'Log out')
  await page.getByText('You are logged out.').waitFor()
})
