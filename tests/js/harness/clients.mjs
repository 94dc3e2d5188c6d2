// The providers that people use, each version, behind one face.
import { webcrypto } from 'node:crypto'
import { createRequire } from 'node:module'
import { inspect } from 'node:util'
import WebSocket from 'ws'
import { defer, until } from './until.mjs'

// Browsers have it, and Node from 20 on.
globalThis.crypto ??= webcrypto

// All as CommonJS, so that there is one copy of yjs: as modules, versions 1 and 2 of y-websocket don't load in Node 18.
const require = createRequire(import.meta.url)
export const Y = require('yjs')
const [Y1, Y2, Y3] = [1, 2, 3].map((version) => require(`y-websocket-${version}`).WebsocketProvider)
const [H2, H3, H4] = [2, 3, 4].map((version) => {
  const { HocuspocusProvider, HocuspocusProviderWebsocket } = require(`hocuspocus-${version}`)
  return [HocuspocusProvider, HocuspocusProviderWebsocket]
})

// y-websocket listens for the end of the process, once for each provider.
process.setMaxListeners(0)

const Y_WEBSOCKET = { 'y-websocket 1.5.4': Y1, 'y-websocket 2.1.0': Y2, 'y-websocket 3.1.0': Y3 }
const HOCUSPOCUS = { 'hocuspocus 2.15.3': H2, 'hocuspocus 3.4.4': H3, 'hocuspocus 4.8.0': H4 }

export const Y_WEBSOCKET_KINDS = Object.keys(Y_WEBSOCKET)
export const HOCUSPOCUS_KINDS = Object.keys(HOCUSPOCUS)
export const KINDS = [...Y_WEBSOCKET_KINDS, ...HOCUSPOCUS_KINDS]

/** Certificates that the providers trust; empty: the usual ones. */
export const trusted = []

class TrustingWebSocket extends WebSocket {
  constructor (url, protocols) {
    super(url, protocols, trusted.length > 0 ? { ca: trusted } : {})
  }
}

/** What both families of providers have in common, as far as tests care. */
class Client {
  /** Close events of its socket: `{ code, reason }`. */
  closes = []
  /** Reasons of in-band refusals. */
  denials = []

  constructor (kind, name) {
    this.kind = kind
    this.name = name
    this.doc = new Y.Doc()
  }

  get text () {
    return this.doc.getText('text')
  }

  get awareness () {
    return this.provider.awareness
  }

  /** What the awareness states of everybody else say under `who`. */
  get others () {
    return [...this.awareness.getStates()]
      .filter(([id]) => id !== this.doc.clientID)
      .map(([, state]) => state.who)
      .filter((who) => who !== undefined)
      .sort()
  }

  get synced () {
    return this.provider.synced
  }

  [inspect.custom] () {
    const { kind, synced, saved, closes, denials, others } = this
    return { kind, synced, saved, closes, denials, others, text: this.text.toString().slice(0, 80) }
  }
}

class YWebsocketClient extends Client {
  constructor (kind, { url, name, token, options = {} }) {
    super(kind, name)
    // Version 1 has no sub-protocols.
    const credentials = token === undefined ? {} : kind.includes(' 1.') ? { params: { token } } : { protocols: ['access_token', token] }
    this.provider = new Y_WEBSOCKET[kind](url, name, this.doc, {
      WebSocketPolyfill: TrustingWebSocket, disableBc: true, ...credentials, ...options
    })
    this.provider.on('connection-close', (event) => {
      if (event !== null) this.closes.push({ code: event.code, reason: event.reason })
    })
  }

  get connected () {
    return this.provider.wsconnected
  }

  /** y-websocket has no acknowledgements: what is sent counts as saved. */
  get saved () {
    return this.synced
  }

  /** Makes the next close of its socket the last. */
  stayAway () {
    this.provider.shouldConnect = false
  }

  destroy () {
    this.provider.destroy()
    // Version 1 leaves its awareness' interval running.
    this.awareness.destroy()
  }
}

class HocuspocusClient extends Client {
  constructor (kind, { url, name, token, socket, options = {} }) {
    super(kind, name)
    const [Provider] = HOCUSPOCUS[kind]
    this.ownsSocket = socket === undefined
    this.socket = socket ?? openSocket(kind, url)
    this.socket.on('close', ({ event }) => this.closes.push({ code: event.code, reason: event.reason }))
    this.provider = new Provider({
      websocketProvider: this.socket,
      name,
      document: this.doc,
      token,
      broadcast: false,
      onAuthenticationFailed: ({ reason }) => this.denials.push(reason),
      ...options
    })
    // Version 2 attaches itself.
    if (!kind.includes(' 2.')) this.provider.attach()
  }

  get connected () {
    return this.socket.status === 'connected'
  }

  /** Everything was acknowledged. */
  get saved () {
    return this.synced && !this.provider.hasUnsyncedChanges
  }

  stayAway () {
    this.socket.shouldConnect = false
  }

  destroy () {
    this.provider.destroy()
    this.awareness.destroy()
    if (this.ownsSocket) closeSocket(this.socket)
  }
}

/** A socket for Hocuspocus providers to share. It reconnects much sooner than an unhurried person's would. */
export function openSocket (kind, url) {
  const [, Socket] = HOCUSPOCUS[kind]
  return new Socket({ url, WebSocketPolyfill: TrustingWebSocket, delay: 50, minDelay: 50, maxDelay: 300 })
}

/** Ends a socket of `openSocket` for good. */
export function closeSocket (socket) {
  socket.destroy()
  // Versions 2 and 3 leave a timer running that connects a destroyed socket again, for ever.
  socket.connect = async () => {}
}

/**
 * Opens a provider on a document; it goes when the test ends.
 *
 * @param {{ url: string, name: string, token?: string | (() => unknown), socket?: object, options?: object }} where
 *   `socket`: a shared one of `openSocket`; `options`: further options of the provider
 */
export function open (t, kind, where) {
  const client = kind in Y_WEBSOCKET ? new YWebsocketClient(kind, where) : new HocuspocusClient(kind, where)
  let gone = false
  const destroy = client.destroy.bind(client)
  client.destroy = () => {
    if (!gone) destroy()
    gone = true
  }
  defer(t, () => client.destroy())
  return client
}

/** One client of each kind in one document. */
export function openAll (t, { url, name, token, kinds = KINDS }) {
  const clients = kinds.map((kind) => open(t, kind, { url, name, token }))
  for (const client of clients) client.awareness.setLocalState({ who: client.kind })
  return clients
}

export function allSynced (clients) {
  return until('everybody is synced', () => clients.every((client) => client.synced), { show: () => clients })
}

export function allSaved (clients) {
  return until('everything is acknowledged', () => clients.every((client) => client.saved), { show: () => clients })
}

/** Everybody has the same text, of that many characters. */
export function sameText (clients, length) {
  return until(`everybody has the same ${length} characters`, () => {
    const text = clients[0].text.toString()
    return text.length === length && clients.every((client) => client.text.toString() === text)
  }, { show: () => clients })
}

/**
 * Everybody moves a little. A provider that lost its connection forgets who was there but not their clocks, so it takes
 * no notice of people who stayed until they do something, be it their renewal every 15 s.
 */
export function allMove (clients) {
  for (const { awareness } of clients) awareness.setLocalStateField('moves', (awareness.getLocalState().moves ?? 0) + 1)
}

/** Everybody sees exactly everybody else. */
export function allSeeEachOther (clients) {
  return until('everybody sees everybody else', () => clients.every((client) => {
    const expected = clients.filter((other) => other !== client).map((other) => other.awareness.getLocalState().who).sort()
    return client.others.join() === expected.join()
  }), { show: () => clients })
}
