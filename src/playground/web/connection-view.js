// The connection as the page shows it: the status in the bar, and a notice over the foot of the editor when there is trouble.
const WORDS = {
  connecting: 'Connecting',
  connected: 'Connected',
  synced: 'Synced',
  disconnected: 'Disconnected',
  refused: 'Refused'
}

export class ConnectionView {
  #elements
  #retryAt = null
  #announced = ''

  constructor (elements, onReconnect) {
    this.#elements = elements
    elements.reconnect.addEventListener('click', onReconnect)
    setInterval(() => this.#countDown(), 250)
  }

  /** @param {import('./session.js').Connection} connection */
  show ({ state, trouble, retryAt }) {
    const { status, statusText, paper, notice, title, advice, detail } = this.#elements
    status.dataset.state = state
    status.dataset.code = trouble?.code ?? ''
    status.title = trouble === null ? '' : describe(trouble)
    statusText.textContent = WORDS[state]
    paper.dataset.state = state

    this.#retryAt = retryAt
    notice.hidden = trouble === null
    notice.dataset.tone = state === 'refused' ? 'bad' : 'warn'
    if (trouble !== null) {
      title.textContent = trouble.title
      advice.textContent = trouble.redirect === null ? trouble.advice : `${trouble.advice} ${trouble.redirect}`
      detail.textContent = describe(trouble)
      detail.hidden = detail.textContent === ''
    }
    this.#countDown(state)
    this.#announce(trouble === null ? WORDS[state] : `${WORDS[state]}. ${trouble.title}. ${trouble.advice}`)
  }

  #countDown (state = this.#elements.status.dataset.state) {
    const { retry } = this.#elements
    if (state !== 'disconnected') {
      retry.textContent = ''
      return
    }
    const seconds = this.#retryAt === null ? 0 : Math.ceil((this.#retryAt - Date.now()) / 1000)
    retry.textContent = seconds > 0 ? `Trying again in ${seconds} s` : 'Trying again…'
  }

  // Said once per change: a screen reader shouldn't hear the count-down, nor each fruitless attempt.
  #announce (words) {
    if (words === this.#announced) return
    this.#announced = words
    this.#elements.announcer.textContent = words
  }
}

function describe ({ code, reason }) {
  if (code === null) return ''
  return reason === '' ? `Close code ${code}` : `Close code ${code}: ${reason}`
}
