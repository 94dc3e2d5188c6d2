// Who we are to the others: a name that the person may change, and a colour that nobody else in the document has.
//
// A chosen name is kept for good. A made-up one belongs to its window, so that two windows of one browser differ.
const NAME_KEY = 'wiresocket.name'
const WINDOW_NAME_KEY = 'wiresocket.window-name'
export const NAME_LENGTH_MAX = 32

const MANNERS = ['Amber', 'Brave', 'Calm', 'Clever', 'Gentle', 'Golden', 'Lucky', 'Mellow', 'Quiet', 'Silver', 'Swift', 'Witty']
const ANIMALS = ['Badger', 'Crane', 'Dolphin', 'Falcon', 'Fox', 'Heron', 'Lynx', 'Otter', 'Owl', 'Panda', 'Robin', 'Wren']

// Control characters, separators, zero-width spaces and what turns the writing direction for whatever comes after it.
const UNSEEN = /[\p{Cc}\p{Zl}\p{Zp}\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]+/gu

/** White text is readable on each (at least 4.5 : 1). */
export const PALETTE = ['#2563eb', '#be185d', '#0f766e', '#b45309', '#7c3aed', '#4d7c0f', '#b91c1c', '#0e7490', '#a21caf', '#475569']

export class Identity {
  #local
  #session

  constructor ({ local, session, random = Math.random }) {
    this.#local = local
    this.#session = session
    const invented = read(session, WINDOW_NAME_KEY) ?? `${pick(MANNERS, random)} ${pick(ANIMALS, random)}`
    write(session, WINDOW_NAME_KEY, invented)
    this.name = cleanName(read(local, NAME_KEY)) ?? invented
    this.color = pick(PALETTE, random)
  }

  /** What the others are told, in the shape that y-codemirror.next and its kin expect. */
  get user () {
    return { name: this.name, color: this.color, colorLight: `${this.color}33` }
  }

  /** Takes a new name; false if there is nothing in it. */
  rename (typed) {
    const name = cleanName(typed)
    if (name === null) return false
    this.name = name
    write(this.#local, NAME_KEY, name)
    return true
  }

  /**
   * Gives way where somebody with a lower client id has our colour: both sides decide the same, so nobody flickers.
   * @param {Map<number, any>} states awareness
   * @returns {boolean} whether the colour changed
   */
  settleColor (states, ownId) {
    const others = [...states].filter(([id]) => id !== ownId)
    const colors = others.map(([, state]) => state?.user?.color)
    const mustMove = others.some(([id, state]) => id < ownId && state?.user?.color === this.color)
    const free = PALETTE.find((color) => !colors.includes(color))
    if (!mustMove || free === undefined) return false
    this.color = free
    return true
  }
}

/** A name as shown: one line, trimmed, bounded; null if nothing is left. */
export function cleanName (typed) {
  if (typeof typed !== 'string') return null
  const name = [...typed.replace(UNSEEN, ' ').replace(/\s+/g, ' ').trim()].slice(0, NAME_LENGTH_MAX).join('').trim()
  return name === '' ? null : name
}

/**
 * Somebody else's awareness, made safe to show: it comes from any client of the document, and a colour ends up in a
 * style attribute.
 */
export function describePeer (clientId, state) {
  const color = state?.user?.color
  return {
    clientId,
    name: cleanName(state?.user?.name) ?? 'Anonymous',
    color: typeof color === 'string' && /^#[0-9a-f]{6}$/i.test(color) ? color : PALETTE[clientId % PALETTE.length]
  }
}

/** The text colour that can be read on `color`. */
export function inkOn (color) {
  const [red, green, blue] = [1, 3, 5].map((at) => {
    const part = parseInt(color.slice(at, at + 2), 16) / 255
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4
  })
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.36 ? '#111111' : '#ffffff'
}

export function initials (name) {
  const words = name.split(' ').filter((word) => word !== '')
  const letters = words.length > 1 ? [words[0], words[words.length - 1]] : [words[0] ?? '?']
  return letters.map((word) => [...word][0].toUpperCase()).join('')
}

function pick (list, random) {
  return list[Math.floor(random() * list.length)]
}

// Storage may be forbidden (a private window, a strict browser); a name that lasts only as long as the page is fine.
function read (storage, key) {
  try {
    return storage?.getItem(key) ?? null
  } catch {
    return null
  }
}

function write (storage, key, value) {
  try {
    storage?.setItem(key, value)
  } catch {}
}
