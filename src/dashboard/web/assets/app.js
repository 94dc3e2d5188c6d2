// What pages gain where there is JavaScript; everything works without.

// Copying what is shown.
for (const button of document.querySelectorAll('button[data-copy]')) {
  if (!navigator.clipboard) break // pages over plain http have none, except on loopback
  const label = button.textContent
  button.hidden = false
  button.addEventListener('click', async () => {
    const text = document.getElementById(button.dataset.copy).textContent.trim()
    const words = await navigator.clipboard.writeText(text).then(() => 'Copied', () => 'Not copied')
    button.textContent = words
    setTimeout(() => { button.textContent = label }, 1500)
  })
}

// Printing what is shown.
for (const button of document.querySelectorAll('button[data-print]')) {
  button.hidden = false
  button.addEventListener('click', () => window.print())
}

// Times in the reader's own zone; the server wrote them in UTC, which stays in the title.
function showLocalTimes (root) {
  for (const time of root.querySelectorAll('time[datetime]')) {
    const at = new Date(time.dateTime)
    if (Number.isNaN(at.getTime())) continue
    time.title = time.textContent
    time.textContent = at.toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' })
  }
}
showLocalTimes(document)

// A form is sent once, however often its button is pressed.
for (const form of document.querySelectorAll('form[method="post"]')) {
  form.addEventListener('submit', (event) => {
    if (form.dataset.sent === 'yes') return event.preventDefault()
    form.dataset.sent = 'yes'
  })
}
window.addEventListener('pageshow', (event) => {
  if (event.persisted) document.querySelectorAll('form[data-sent]').forEach((form) => delete form.dataset.sent)
})

// A question that is open is closed by Escape, and by opening another.
const questions = [...document.querySelectorAll('details.confirm')]
for (const question of questions) {
  question.addEventListener('toggle', () => {
    if (question.open) questions.filter((other) => other !== question).forEach((other) => { other.open = false })
  })
  question.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape' || !question.open) return
    question.open = false
    question.querySelector('summary').focus()
  })
}

// After a form came back, at the first field that is wrong.
document.querySelector('[aria-invalid="true"]')?.focus()

// What goes on now is loaded again every few seconds while somebody can see it: each [data-live] part of the page at
// [data-refresh], if that is open. Parts hold no forms. If the rows around them are others now, the whole page is, unless it
// is in use.
const refreshed = document.querySelector('[data-refresh]')
const REFRESH_MS = 5000
async function refresh () {
  if (document.visibilityState === 'visible' && !refreshed.matches('details:not([open])')) await loadParts().catch(() => {})
  setTimeout(refresh, REFRESH_MS)
}
async function loadParts () {
  const { refresh: address } = refreshed.dataset
  const answer = await fetch(address, { headers: { 'x-refresh': '1' }, redirect: 'manual' })
  document.getElementById('old-figures')?.remove()
  if (!answer.ok) {
    const words = answer.type === 'opaqueredirect' ? 'You are logged out. Load the page again to log in.' : 'The dashboard does not answer as it should. The figures are old.'
    const notice = Object.assign(document.createElement('p'), { id: 'old-figures', className: 'notice warn', role: 'status', textContent: words })
    return refreshed.before(notice)
  }
  const page = new DOMParser().parseFromString(await answer.text(), 'text/html')
  showLocalTimes(page)
  for (const part of document.querySelectorAll('[data-live]')) {
    const fresh = page.getElementById(part.id)
    if (fresh && fresh.innerHTML !== part.innerHTML) part.replaceChildren(...fresh.childNodes)
  }
  const rows = (root) => [...root.querySelectorAll('[data-row]')].map((row) => row.dataset.row).join()
  const isInUse = document.querySelector('main :focus, main details.confirm[open]')
  if (rows(page) !== rows(document) && !isInUse && location.pathname === address) location.replace(address)
}
if (refreshed) setTimeout(refresh, REFRESH_MS)
if (refreshed?.matches('details')) refreshed.addEventListener('toggle', () => { if (refreshed.open) loadParts().catch(() => {}) })

// A code in the link's fragment, which no server sees, is sent in the form's body instead, and leaves the address bar.
const coded = document.querySelector('form[data-code-from-link]')
if (coded && location.hash.length > 1) {
  coded.elements.code.value = location.hash.slice(1)
  history.replaceState(null, '', location.pathname)
  coded.requestSubmit()
}
