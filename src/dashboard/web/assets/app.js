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
for (const time of document.querySelectorAll('time[datetime]')) {
  const at = new Date(time.dateTime)
  if (Number.isNaN(at.getTime())) continue
  time.title = time.textContent
  time.textContent = at.toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' })
}

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
