// Plans and money in a real browser: what is shown before it is confirmed is what is then on the invoice.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { openWindow, screenshot, startBrowser, visit } from '../harness/browser.mjs'
import { startDashboard } from '../harness/dashboard.mjs'
import { fill, follow, heading, logInFirst, look, press, question } from '../harness/pages.mjs'

const PASSWORD = 'correct horse battery'

let browser
let dashboard

before(async () => {
  [browser, dashboard] = await Promise.all([startBrowser(), startDashboard()])
})
after(() => Promise.all([browser?.close(), dashboard?.stop()]))

/** The lines of the first table of money: what for, and how much. */
const lines = (page) => page.locator('table.bill').first().locator('tbody tr').allInnerTexts()
const total = (page) => page.locator('table.bill').first().locator('tfoot td').innerText()

async function makeApp (page, name) {
  await fill(page, { Name: name })
  await page.getByLabel('License region', { exact: true }).selectOption('aws-us-east-1')
  await press(page, 'Make the app')
  await follow(page, 'I have copied it: choose a plan')
  return page.url()
}

/** The operator, logged in with a password of his own. */
async function openOperator (t) {
  const window = await openWindow(t, browser)
  const { page } = window
  const oneTime = { email: 'ops@example.com', password: dashboard.operatorPassword }
  await logInFirst(page, dashboard.issuer, oneTime, 'operators have long ones')
  return window
}

test('a second free app is refused, an upgrade costs what was shown, and a cancellation is taken back', async (t) => {
  const window = await openWindow(t, browser)
  const { page } = window
  await visit(page, `${dashboard.issuer}/signup`)
  await fill(page, { 'Company or project': 'Acme', 'Your name': 'Ada Lovelace', 'E-mail address': 'ada@example.com', Password: PASSWORD })
  await press(page, 'Sign up')
  await heading(page, 'Waiting for approval')
  await follow(page, 'Billing')
  await look(page, 'billing-empty')
  const ops = await openOperator(t)
  const operator = ops.page
  await follow(operator, 'All tenants')
  await press(operator, 'Approve Acme')
  await follow(operator, 'Open invoices')
  await look(operator, 'operator-invoices-empty')

  // A free app; a second one is told who has the free plan.
  await follow(page, 'Apps')
  await follow(page, 'Make the first app')
  const notes = await makeApp(page, 'Notes')
  await look(page, 'plan-none')
  await press(page, 'Choose Free')
  await heading(page, 'Notes')
  await look(page, 'app-with-plan')
  await follow(page, 'Apps')
  await follow(page, 'New app')
  const drafts = await makeApp(page, 'Drafts')
  assert.match(await page.locator('.taken').innerText(), /^Taken: Notes has the free plan/)
  await look(page, 'plan-free-taken')
  assert.equal(await page.locator('.taken a').getAttribute('href'), new URL(notes).pathname)
  // As a page that was open before would do.
  await page.locator('form[action="/logout"]').evaluate((form, action) => {
    form.action = action
    form.insertAdjacentHTML('beforeend', '<input type="hidden" name="plan" value="free">')
    form.requestSubmit()
  }, drafts)
  assert.match(await page.getByRole('alert').innerText(), /^A tenant has one app on the free plan, and Notes is it\..* The plan of Notes$/)
  await look(page, 'plan-refused')

  // The first one goes up: charged in full, as shown.
  await follow(page, 'The plan of Notes')
  await look(page, 'plan-free')
  await follow(page, 'Choose Starter')
  await heading(page, 'Starter for Notes')
  await look(page, 'plan-confirm')
  let shown = await lines(page)
  assert.equal(await total(page), '$29.00')
  await press(page, 'Confirm and be charged $29.00')
  await page.getByRole('heading', { name: /^Invoice 1/ }).waitFor()
  assert.deepEqual(await lines(page), shown)
  assert.equal(await page.locator('#reference').innerText(), 'WireSocket invoice 1')
  await look(page, 'invoice-open')

  // The operator sees the money come in.
  await follow(operator, 'Open invoices')
  await look(operator, 'operator-invoices')
  await follow(operator, 'Invoice 1')
  await fill(operator, { 'Reference of the payment': 'wire 2026-118', Amount: '29,00' })
  await press(operator, 'Mark as paid')
  assert.match(await operator.locator('#error-amount').innerText(), /29\.50/)
  await look(operator, 'operator-invoice-refused')
  await fill(operator, { Amount: '' })
  await press(operator, 'Mark as paid')
  await operator.getByText('The invoice is paid.').waitFor()
  await look(operator, 'operator-invoice-paid')
  await page.reload()
  await page.getByText('Payment, wire 2026-118').waitFor()
  await look(page, 'invoice-paid')
  await page.emulateMedia({ media: 'print' })
  await screenshot(page, 'dashboard-invoice-print', { fullPage: true })
  assert.equal(await page.locator('.top').isVisible(), false)
  assert.equal(await page.locator('table.bill').first().isVisible(), true)
  await page.emulateMedia({ media: null })

  // A plan for a year, from the catalogue; the rest of the month is credited on its invoice.
  await follow(operator, 'Plans')
  await look(operator, 'operator-plans')
  await follow(operator, 'New plan')
  await fill(operator, { Id: 'starter-yearly', Name: 'Starter, yearly', Price: '290,00', Connections: '1000', 'Documents open at once': '1000', 'People in one document': '50', 'Changes a minute': '60000' })
  await operator.getByLabel('Period', { exact: true }).selectOption('year')
  await press(operator, 'Make the plan')
  assert.match(await operator.locator('#error-price').innerText(), /29\.50/)
  await look(operator, 'operator-plan-refused')
  await fill(operator, { Price: '290' })
  await press(operator, 'Make the plan')
  await operator.getByText('The plan is on offer.').waitFor()
  await look(operator, 'operator-plan')

  await visit(page, notes)
  await look(page, 'plan-starter')
  await follow(page, 'Choose Starter, yearly')
  shown = await lines(page)
  assert.equal(shown.length, 2)
  assert.match(shown[0], /^Starter, unused from .*seconds\s+−\$2[89]\.\d\d$/s)
  assert.match(shown[1], /^Starter, yearly, .*\$290\.00$/s)
  const sum = await total(page)
  await look(page, 'plan-confirm-proration')
  await press(page, `Confirm and be charged ${sum}`)
  await page.getByRole('heading', { name: /^Invoice 2/ }).waitFor()
  assert.deepEqual(await lines(page), shown)
  assert.equal(await total(page), sum)
  await look(page, 'invoice-proration')

  // To a dearer one with the next invoice, and what waits for it.
  await operator.goto(page.url())
  await press(operator, 'Mark as paid')
  await visit(page, drafts)
  await follow(page, 'Choose Starter')
  await press(page, 'Confirm and be charged $29.00')
  await page.getByRole('heading', { name: /^Invoice 3/ }).waitFor()
  await visit(page, drafts)
  await follow(page, 'Choose Pro')
  await page.getByText('Nothing is charged.').waitFor()
  await look(page, 'plan-confirm-next')
  await press(page, 'Confirm Pro')
  await page.getByText('The plan is changed.').waitFor()
  await follow(page, 'Billing')
  await look(page, 'billing')
  await page.getByText('What it is made of').click()
  await look(page, 'billing-waiting')
  await follow(operator, 'Open invoices')
  await follow(operator, 'Invoice 3')
  await question(operator, 'Write it off')
  await look(operator, 'operator-invoice-write-off')
  await fill(operator, { Reason: 'a friend' })
  await press(operator, 'Write off $29.00')
  await operator.getByText('The invoice is written off.').waitFor()
  await look(operator, 'operator-invoice-void')

  // Cancelled, and not after all.
  await visit(page, notes)
  await question(page, 'Cancel the plan')
  await look(page, 'plan-cancel-question')
  await press(page, 'Cancel Starter, yearly')
  await page.getByText('The plan is cancelled.').waitFor()
  await look(page, 'plan-cancelled')
  await follow(page, 'Billing')
  await page.locator('.badge', { hasText: 'cancelled' }).waitFor()
  await visit(page, notes)
  await press(page, 'Take the cancellation back')
  await page.getByText('The cancellation is taken back.').waitFor()

  // New terms are for those who want them.
  await follow(operator, 'Plans')
  await follow(operator, 'Starter, yearly')
  await fill(operator, { Price: '390' })
  await press(operator, 'Publish the new version')
  await operator.getByText('The new version is what can be chosen now.').waitFor()
  await look(operator, 'operator-plan-versions')
  await page.reload()
  await page.getByRole('link', { name: 'Take the new terms of Starter, yearly' }).waitFor()
  await look(page, 'plan-new-terms')
  await question(operator, 'Retire')
  await press(operator, 'Retire Starter, yearly')
  await operator.getByText('The plan is retired.').waitFor()
  await look(operator, 'operator-plan-retired')

  // The 422s are expected; anything else that the browser complains of is not.
  const errors = [...window.errors, ...ops.errors].filter((text) => !/status of 422/.test(text))
  assert.deepEqual(errors, [])
})

test('a plan is confirmed without JavaScript, and by keyboard', async (t) => {
  const { tenant, oneTimePassword } = await dashboard.admin('create-tenant', 'Globex', '--owner', 'grace@example.com', '--approve')
  await dashboard.admin('create-app', tenant, 'Sheets')
  const { page } = await openWindow(t, browser, { javaScriptEnabled: false })
  await logInFirst(page, dashboard.issuer, { email: 'grace@example.com', password: oneTimePassword }, PASSWORD)
  await visit(page, `${dashboard.issuer}/tenants/${tenant}/billing`)
  await page.getByRole('link', { name: 'Choose a plan for Sheets' }).focus()
  await page.keyboard.press('Enter')
  await page.getByRole('link', { name: 'Choose Starter', exact: true }).focus()
  await page.keyboard.press('Enter')
  await heading(page, 'Starter for Sheets')
  assert.equal(await page.getByRole('button', { name: 'Print' }).count(), 0)
  await page.getByRole('button', { name: 'Confirm and be charged $29.00' }).focus()
  await page.keyboard.press('Enter')
  await page.getByRole('heading', { name: /^Invoice \d+/ }).waitFor()
})
