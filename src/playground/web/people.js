// Who is in the document: the row of avatars in the bar, and the list with one's own editable name.
import { NAME_LENGTH_MAX, describePeer, initials, inkOn } from './identity.js'
import { peopleHere } from './format.js'

const AVATARS_MAX = 4

export class People {
  #elements
  #identity
  #shown = ''

  /** @param {(typed: string) => boolean} onRename */
  constructor (elements, identity, onRename) {
    this.#elements = elements
    this.#identity = identity
    const input = elements.name
    input.maxLength = NAME_LENGTH_MAX
    input.value = identity.name
    input.addEventListener('input', () => onRename(input.value))
    // An empty name isn't taken: the field shows again what the others see.
    input.addEventListener('change', () => { input.value = identity.name })
    input.addEventListener('keydown', (event) => { if (event.key === 'Enter') input.blur() })
  }

  show (awareness) {
    const self = { clientId: awareness.clientID, name: this.#identity.name, color: this.#identity.color }
    const peers = [...awareness.getStates()]
      .filter(([id, state]) => id !== awareness.clientID && state?.user !== undefined)
      .map(([id, state]) => describePeer(id, state))
    // Awareness changes with every caret move; the list only when somebody comes, goes or is renamed.
    const key = JSON.stringify([self, peers])
    if (key === this.#shown) return
    this.#shown = key

    const { count, list, ownAvatar, waiting, avatars } = this.#elements
    count.textContent = peopleHere(peers.length + 1)
    count.dataset.count = String(peers.length + 1)
    paint(ownAvatar, self)
    waiting.hidden = peers.length > 0
    for (const row of list.querySelectorAll('[data-peer]')) row.remove()
    list.append(...peers.map(personRow))
    avatars.replaceChildren(...avatarRow([self, ...peers]))
  }
}

function personRow (peer) {
  const row = document.createElement('li')
  row.className = 'person'
  row.dataset.peer = String(peer.clientId)
  const name = document.createElement('span')
  name.className = 'person-name'
  name.textContent = peer.name
  row.append(avatar(peer), name)
  return row
}

function avatarRow (people) {
  const shown = people.slice(0, AVATARS_MAX).map(avatar)
  const rest = people.length - shown.length
  if (rest > 0) {
    const more = document.createElement('span')
    more.className = 'avatar avatar-more'
    more.textContent = `+${Math.min(rest, 99)}`
    shown.push(more)
  }
  return shown
}

function avatar (person) {
  const element = document.createElement('span')
  element.className = 'avatar'
  element.title = person.name
  element.setAttribute('aria-hidden', 'true')
  paint(element, person)
  return element
}

function paint (element, person) {
  element.textContent = initials(person.name)
  element.style.setProperty('--peer', person.color)
  element.style.setProperty('--peer-ink', inkOn(person.color))
}
