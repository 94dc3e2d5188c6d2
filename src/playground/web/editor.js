// The text editor: CodeMirror bound to a Y.Text, with Markdown shown as what it means.
import { defaultKeymap } from '@codemirror/commands'
import { HighlightStyle, Language, defineLanguageFacet, syntaxHighlighting } from '@codemirror/language'
import { EditorState } from '@codemirror/state'
import { EditorView, drawSelection, keymap, placeholder } from '@codemirror/view'
import { tags } from '@lezer/highlight'
import { GFM, parser } from '@lezer/markdown'
import { yCollab, yUndoManagerKeymap } from 'y-codemirror.next'
import { peerCursors } from './cursors.js'

// The bare Markdown grammar: the full language package would bring those of HTML, CSS and JavaScript along.
const markdown = new Language(defineLanguageFacet({}), parser.configure([GFM]), [], 'markdown')

const look = HighlightStyle.define([
  { tag: tags.heading1, class: 'md-h1' },
  { tag: tags.heading2, class: 'md-h2' },
  { tag: [tags.heading3, tags.heading4, tags.heading5, tags.heading6], class: 'md-h3' },
  { tag: tags.strong, class: 'md-strong' },
  { tag: tags.emphasis, class: 'md-em' },
  { tag: tags.strikethrough, class: 'md-strike' },
  { tag: tags.link, class: 'md-link' },
  { tag: tags.url, class: 'md-url' },
  { tag: tags.monospace, class: 'md-code' },
  { tag: tags.quote, class: 'md-quote' },
  { tag: [tags.processingInstruction, tags.contentSeparator, tags.labelName], class: 'md-mark' }
])

/**
 * @param {{ parent: HTMLElement, text: import('yjs').Text, awareness: import('y-protocols/awareness').Awareness }} options
 */
export function createEditor ({ parent, text, awareness }) {
  return new EditorView({
    parent,
    state: EditorState.create({
      doc: text.toString(),
      extensions: [
        // Tab is left to the page: a person at the keyboard must be able to leave the editor.
        keymap.of([...yUndoManagerKeymap, ...defaultKeymap]),
        EditorView.lineWrapping,
        drawSelection({ drawRangeCursor: false }),
        markdown,
        syntaxHighlighting(look),
        placeholder(emptyHint),
        yCollab(text, null),
        peerCursors(text, awareness),
        EditorView.contentAttributes.of({
          'aria-label': 'Shared document',
          'data-testid': 'editor',
          autocapitalize: 'sentences',
          spellcheck: 'false'
        })
      ]
    })
  })
}

// Its words come from the style sheet, by connection state, so that they never are part of the document's text.
function emptyHint () {
  const hint = document.createElement('span')
  hint.className = 'empty-hint'
  return hint
}
