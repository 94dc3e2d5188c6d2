// The panel with code to paste: two tabs, the token abbreviated on the screen and whole on the clipboard.
import { abbreviateToken } from './format.js'
import { showCode, snippets } from './snippets.js'

const COPIED_MS = 1600

export class CodeView {
  #elements
  #target = null
  #chosen = 'y-websocket'

  constructor (elements) {
    this.#elements = elements
    for (const tab of elements.tabs) {
      tab.addEventListener('click', () => this.#choose(tab))
      tab.addEventListener('keydown', (event) => this.#onKey(event, tab))
    }
    copyOnClick(elements.copyCode, () => this.#target && snippets(this.#target)[this.#chosen])
    copyOnClick(elements.copyToken, () => this.#target?.token)
  }

  /** @param {{ url: string, name: string, token: string }} target */
  show (target) {
    this.#target = target
    this.#elements.token.textContent = abbreviateToken(target.token)
    this.#render()
  }

  #render () {
    if (this.#target === null) return
    const shown = { ...this.#target, token: abbreviateToken(this.#target.token) }
    showCode(this.#elements.code, snippets(shown)[this.#chosen])
  }

  #choose (tab) {
    this.#chosen = tab.dataset.client
    for (const other of this.#elements.tabs) {
      other.setAttribute('aria-selected', String(other === tab))
      other.tabIndex = other === tab ? 0 : -1
    }
    this.#elements.panel.setAttribute('aria-labelledby', tab.id)
    this.#render()
  }

  #onKey (event, tab) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key]
    if (step === undefined) return
    const tabs = this.#elements.tabs
    const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length]
    event.preventDefault()
    this.#choose(next)
    next.focus()
  }
}

/** Makes `button` copy what `content()` returns, and say so in its own label for a moment. */
export function copyOnClick (button, content) {
  const label = button.textContent
  let timer
  button.addEventListener('click', async () => {
    const text = content()
    if (!text) return
    const copied = await copy(text)
    button.textContent = copied ? 'Copied' : 'Failed'
    clearTimeout(timer)
    timer = setTimeout(() => { button.textContent = label }, COPIED_MS)
  })
}

async function copy (text) {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    return copyBySelection(text)
  }
}

// The clipboard interface exists only on secure origins: not on a phone that came over the local network.
function copyBySelection (text) {
  const before = document.activeElement
  const area = document.createElement('textarea')
  area.value = text
  area.className = 'visually-hidden'
  document.body.append(area)
  area.select()
  const copied = document.execCommand('copy')
  area.remove()
  before?.focus()
  return copied
}
