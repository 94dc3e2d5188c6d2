// The playground: puts a session, the editor and the views together, and follows the document name in the address.
import { CodeView, copyOnClick } from './code-view.js'
import { ConnectionView } from './connection-view.js'
import { Credentials } from './credentials.js'
import { createEditor } from './editor.js'
import { formatBytes, formatCount, formatMs } from './format.js'
import { Identity } from './identity.js'
import { Meter } from './meter.js'
import { People } from './people.js'
import { Session } from './session.js'

const DEFAULT_DOCUMENT = 'welcome'
const DOCUMENT_NAME = /^[A-Za-z0-9_-]{1,255}$/
const METER_EVERY_MS = 250

const byId = (id) => document.getElementById(id)
const identity = new Identity(storages())
const meter = new Meter()
let session = null
let editor = null

const connectionView = new ConnectionView({
  status: byId('status'),
  statusText: byId('status-text'),
  paper: byId('paper'),
  notice: byId('notice'),
  title: byId('notice-title'),
  advice: byId('notice-advice'),
  detail: byId('notice-detail'),
  retry: byId('notice-retry'),
  reconnect: byId('reconnect'),
  announcer: byId('announcer')
}, () => session.connect())

const codeView = new CodeView({
  tabs: [byId('tab-y-websocket'), byId('tab-hocuspocus')],
  panel: byId('code-panel'),
  code: byId('code'),
  copyCode: byId('copy-code'),
  token: byId('token'),
  copyToken: byId('copy-token')
})

const people = new People({
  count: byId('people'),
  list: byId('people-list'),
  name: byId('name'),
  ownAvatar: byId('own-avatar'),
  waiting: byId('waiting'),
  avatars: byId('avatars')
}, identity, (typed) => {
  if (identity.rename(typed)) session.awareness.setLocalStateField('user', identity.user)
})

const credentials = new Credentials(() => {
  session.credentialsChanged()
  showTarget()
})

function openDocument (name) {
  editor?.destroy()
  session?.destroy()
  session = new Session({
    name,
    credentials,
    meter,
    user: identity.user,
    onConnection: (connection) => connectionView.show(connection)
  })
  const { awareness, text } = session
  awareness.on('change', () => {
    if (identity.settleColor(awareness.getStates(), awareness.clientID)) {
      awareness.setLocalStateField('user', identity.user)
    }
    people.show(awareness)
  })
  people.show(awareness)
  editor = createEditor({ parent: byId('editor'), text, awareness })
  byId('doc').value = name
  document.title = `${name} · WireSocket playground`
  byId('second-window').href = documentUrl(name)
  if (credentials.config !== null) showTarget()
  session.connect()
}

function showTarget () {
  codeView.show({ url: credentials.socketUrl, name: session.name, token: credentials.token })
  byId('version').textContent = `WireSocket ${credentials.config.version ?? ''}`
}

function showMeter () {
  show('rtt', formatMs(meter.roundTripMs), meter.roundTripMs ?? '')
  show('bytes-in', formatBytes(meter.bytesIn), meter.bytesIn)
  show('bytes-out', formatBytes(meter.bytesOut), meter.bytesOut)
  show('messages-in', formatCount(meter.messagesIn), meter.messagesIn)
  show('messages-out', formatCount(meter.messagesOut), meter.messagesOut)
}

function show (id, words, value) {
  const element = byId(id)
  if (element.textContent !== words) element.textContent = words
  element.dataset.value = String(value)
}

function documentUrl (name) {
  return `/playground?doc=${encodeURIComponent(name)}`
}

// A name in the address is taken as it is, so that the server's own answer to a bad one can be seen.
function documentInAddress () {
  return new URLSearchParams(window.location.search).get('doc') || DEFAULT_DOCUMENT
}

function setUpDocumentForm () {
  const [form, input, error] = [byId('doc-form'), byId('doc'), byId('doc-error')]
  const complain = (words) => {
    error.textContent = words
    error.hidden = words === ''
    input.setAttribute('aria-invalid', String(words !== ''))
  }
  input.addEventListener('input', () => {
    complain('')
    form.classList.toggle('dirty', input.value.trim() !== session.name)
  })
  input.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return
    input.value = session.name
    complain('')
    form.classList.remove('dirty')
  })
  form.addEventListener('submit', (event) => {
    event.preventDefault()
    const name = input.value.trim()
    if (!DOCUMENT_NAME.test(name)) return complain('Use 1 to 255 letters, digits, - and _')
    form.classList.remove('dirty')
    if (name === session.name) return
    window.history.pushState(null, '', documentUrl(name))
    openDocument(name)
    editor.focus()
  })
  window.addEventListener('popstate', () => {
    complain('')
    form.classList.remove('dirty')
    openDocument(documentInAddress())
  })
}

function setUpSharing () {
  copyOnClick(byId('copy-link'), () => new URL(documentUrl(session.name), window.location.href).href)
  byId('second-window').addEventListener('click', (event) => {
    // A plain link does on a phone; on a desk, a window of its own can stand beside this one.
    if (event.ctrlKey || event.metaKey || event.shiftKey || window.matchMedia('(max-width: 800px)').matches) return
    event.preventDefault()
    const width = Math.max(420, Math.floor(window.screen.availWidth / 2))
    window.open(documentUrl(session.name), '_blank',
      `popup,noopener,width=${width},height=${window.screen.availHeight},left=${window.screen.availWidth - width},top=0`)
  })
}

function setUpTheme () {
  const button = byId('theme')
  const system = window.matchMedia('(prefers-color-scheme: dark)')
  const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? 'dark' : 'light')) === 'dark'
  const label = () => button.setAttribute('aria-label', `Switch to the ${isDark() ? 'light' : 'dark'} theme`)
  button.addEventListener('click', () => {
    const theme = isDark() ? 'light' : 'dark'
    document.documentElement.dataset.theme = theme
    try {
      window.localStorage.setItem('wiresocket.theme', theme)
    } catch {
      // Storage may be forbidden; the choice then lasts as long as the page.
    }
    label()
  })
  system.addEventListener('change', label)
  label()
}

function storages () {
  try {
    return { local: window.localStorage, session: window.sessionStorage }
  } catch {
    return { local: null, session: null }
  }
}

setUpTheme()
setUpSharing()
setUpDocumentForm()
openDocument(documentInAddress())
showMeter()
setInterval(showMeter, METER_EVERY_MS)
