// Ready-to-paste code that joins the document on the screen.
import { TEXT_NAME } from './session.js'

/** @param {{ url: string, name: string, token: string }} target */
export function snippets (target) {
  const [url, name, token] = [target.url, target.name, target.token].map(quote)
  return {
    'y-websocket': `// npm install yjs y-websocket
import * as Y from 'yjs'
import { WebsocketProvider } from 'y-websocket'

const token = ${token}
const ydoc = new Y.Doc()
const text = ydoc.getText('${TEXT_NAME}')
const provider = new WebsocketProvider(
  ${url},
  ${name},
  ydoc,
  { protocols: ['access_token', token] }
)
provider.on('sync', () => {
  console.log(text.toString())
})
`,
    hocuspocus: `// npm install yjs @hocuspocus/provider
import * as Y from 'yjs'
import {
  HocuspocusProvider
} from '@hocuspocus/provider'

const token = ${token}
const ydoc = new Y.Doc()
const text = ydoc.getText('${TEXT_NAME}')
const provider = new HocuspocusProvider({
  url: ${url},
  name: ${name},
  token,
  document: ydoc,
  onSynced: () => console.log(\`\${text}\`)
})
`
  }
}

// The document's name comes from the address bar: it may hold anything.
function quote (value) {
  return `'${value.replace(/[\\']/g, '\\$&').replace(/\s/g, ' ')}'`
}

const TOKENS = /(\/\/.*)|('(?:[^'\\\n]|\\.)*')|\b(import|from|const|new|as)\b/g
const CLASSES = ['code-comment', 'code-string', 'code-keyword']

/** Fills `element` with `code`, coloured. Only our own snippets go through here. */
export function showCode (element, code) {
  const parts = []
  let end = 0
  for (const match of code.matchAll(TOKENS)) {
    parts.push(code.slice(end, match.index))
    const span = document.createElement('span')
    span.className = CLASSES[match.slice(1).findIndex((group) => group !== undefined)]
    span.textContent = match[0]
    parts.push(span)
    end = match.index + match[0].length
  }
  element.replaceChildren(...parts, code.slice(end))
}
