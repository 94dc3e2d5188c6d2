// Other people's carets and selections.
//
// It speaks the awareness format of y-codemirror.next (`cursor: {anchor, head}`, relative positions), and stands in for
// that package's own drawing because awareness comes from strangers: there, a malformed position takes the plugin down
// for everybody, a colour can smuggle in styles, and a caret keeps the name that its owner had when it was first drawn.
import { Annotation, RangeSet } from '@codemirror/state'
import { Decoration, ViewPlugin, WidgetType } from '@codemirror/view'
import * as Y from 'yjs'
import { describePeer, inkOn } from './identity.js'

const peersChanged = Annotation.define()

class Caret extends WidgetType {
  constructor (peer, moves) {
    super()
    this.peer = peer
    this.moves = moves
  }

  // A moved caret is a new element on purpose: that restarts the animation which shows its name for a moment.
  eq (other) {
    return other.moves === this.moves && other.peer.name === this.peer.name && other.peer.color === this.peer.color
  }

  toDOM () {
    const caret = document.createElement('span')
    caret.className = 'peer-caret'
    caret.dataset.name = this.peer.name
    caret.dataset.testid = 'peer-caret'
    caret.style.setProperty('--peer', this.peer.color)
    caret.style.setProperty('--peer-ink', inkOn(this.peer.color))
    // The name is drawn by the style sheet: the caret adds nothing to the document's text, not even for who copies it.
    return caret
  }

  ignoreEvent () {
    return true
  }
}

/** @param {Y.Text} text @param {import('y-protocols/awareness').Awareness} awareness */
export function peerCursors (text, awareness) {
  return ViewPlugin.define((view) => new PeerCursors(view, text, awareness), { decorations: (plugin) => plugin.decorations })
}

class PeerCursors {
  decorations = RangeSet.empty
  #text
  #awareness
  #seen = new Map()
  #onChange

  constructor (view, text, awareness) {
    this.#text = text
    this.#awareness = awareness
    this.#onChange = ({ added, updated, removed }) => {
      for (const id of removed) this.#seen.delete(id)
      if ([...added, ...updated, ...removed].some((id) => id !== awareness.clientID)) {
        view.dispatch({ annotations: [peersChanged.of(true)] })
      }
    }
    awareness.on('change', this.#onChange)
  }

  destroy () {
    this.#awareness.off('change', this.#onChange)
  }

  update (update) {
    if (update.selectionSet || update.docChanged || update.focusChanged) this.#publish(update)
    this.decorations = this.#draw(update.state.doc)
    update.view.requestMeasure(KEEP_NAMES_INSIDE)
  }

  // A window that loses the focus keeps its caret where it was: side by side, that is what the other window looks at.
  #publish ({ view, state }) {
    if (!view.hasFocus || this.#awareness.getLocalState() === null) return
    const { anchor, head } = state.selection.main
    const cursor = {
      anchor: Y.createRelativePositionFromTypeIndex(this.#text, anchor),
      head: Y.createRelativePositionFromTypeIndex(this.#text, head)
    }
    if (JSON.stringify(cursor) === JSON.stringify(this.#awareness.getLocalState().cursor)) return
    this.#awareness.setLocalStateField('cursor', cursor)
  }

  #draw (doc) {
    const ranges = []
    for (const [id, state] of this.#awareness.getStates()) {
      if (id === this.#awareness.clientID) continue
      const cursor = this.#locate(state, doc.length)
      if (cursor === null) continue
      const peer = describePeer(id, state)
      const { anchor, head } = cursor
      const style = `--peer:${peer.color}`
      if (anchor !== head) {
        ranges.push(Decoration.mark({ class: 'peer-selection', attributes: { style } })
          .range(Math.min(anchor, head), Math.max(anchor, head)))
      }
      ranges.push(Decoration.widget({ side: head > anchor ? -1 : 1, widget: new Caret(peer, this.#moves(id, state.cursor)) })
        .range(head))
    }
    return Decoration.set(ranges, true)
  }

  /** Where a peer's cursor is now, or null where it has none that belongs to this text. */
  #locate (state, length) {
    try {
      const [anchor, head] = [state.cursor.anchor, state.cursor.head].map((position) =>
        Y.createAbsolutePositionFromRelativePosition(Y.createRelativePositionFromJSON(position), this.#text.doc))
      if (anchor.type !== this.#text || head.type !== this.#text) return null
      // While a change is on its way from Yjs to the editor, the two may differ in length.
      return { anchor: Math.min(anchor.index, length), head: Math.min(head.index, length) }
    } catch {
      return null
    }
  }

  #moves (id, cursor) {
    const key = JSON.stringify(cursor)
    const seen = this.#seen.get(id)
    if (seen?.key === key) return seen.moves
    const moves = (seen?.moves ?? 0) + 1
    this.#seen.set(id, { key, moves })
    return moves
  }
}

// A name beside a caret near the right edge opens to the left instead, so that it isn't cut off.
const KEEP_NAMES_INSIDE = {
  key: 'keep-names-inside',
  read: (view) => {
    const right = view.scrollDOM.getBoundingClientRect().right
    return [...view.contentDOM.querySelectorAll('.peer-caret')].map((caret) =>
      [caret, right - caret.getBoundingClientRect().left < caret.dataset.name.length * 8 + 24])
  },
  write: (carets) => {
    for (const [caret, near] of carets) caret.classList.toggle('near-edge', near)
  }
}
