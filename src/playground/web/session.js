// One document, one connection to it, and the story of that connection as the page tells it.
//
// y-websocket retries every close code but 44xx, several times a second at first. A refusal that a retry can't mend
// must not become a storm, so the page decides per code (close-codes.js): stop, renew the token once, wait, or leave it
// to the provider.
import { WebsocketProvider } from 'y-websocket'
import { Awareness } from 'y-protocols/awareness'
import * as Y from 'yjs'
import { explainClose } from './close-codes.js'
import { countingWebSocket, stepOne } from './meter.js'

/** The name of the shared text inside the document. */
export const TEXT_NAME = 'content'

const PROBE_EVERY_MS = 3000
// Right after the sync the page is busy drawing, and would time itself.
const FIRST_PROBE_MS = 500
const CONFIG_RETRY_S = 3
// Two refusals of fresh tokens in a row within this time: the tokens aren't what is wrong.
const RENEW_AGAIN_MS = 10_000

/**
 * @typedef {object} Connection
 * @property {'connecting'|'connected'|'synced'|'disconnected'|'refused'} state
 * @property {{ code: number | null, title: string, advice: string, reason: string, redirect: string | null } | null} trouble
 * @property {number | null} retryAt when the next attempt starts, in ms since 1970; null if none is planned or it is imminent
 */

export class Session {
  /** @type {Connection} */
  connection = { state: 'connecting', trouble: null, retryAt: null }
  #credentials
  #meter
  #onConnection
  #provider = null
  #usedToken = ''
  #renewedAt = -Infinity
  #retryTimer = null
  #probeTimer = null
  #onVisible = () => this.#probe()
  #closed = false

  constructor ({ name, credentials, meter, user, onConnection }) {
    this.name = name
    this.doc = new Y.Doc()
    this.text = this.doc.getText(TEXT_NAME)
    this.awareness = new Awareness(this.doc)
    this.awareness.setLocalStateField('user', user)
    this.#credentials = credentials
    this.#meter = meter
    this.#onConnection = onConnection
    this.#probeTimer = setInterval(() => this.#probe(), PROBE_EVERY_MS)
    document.addEventListener('visibilitychange', this.#onVisible)
  }

  /** Connects with what config.json says now: the first time, and whenever the person asks for it again. */
  async connect () {
    clearTimeout(this.#retryTimer)
    this.#tell('connecting')
    try {
      await this.#credentials.refresh()
    } catch (error) {
      if (this.#closed) return
      this.#tell('disconnected', { code: null, title: 'No connection details', advice: error.message, reason: '', redirect: null })
      return this.#retryIn(CONFIG_RETRY_S)
    }
    if (!this.#closed) this.#open()
  }

  destroy () {
    this.#closed = true
    clearTimeout(this.#retryTimer)
    clearInterval(this.#probeTimer)
    document.removeEventListener('visibilitychange', this.#onVisible)
    this.#meter.lost()
    this.#provider?.destroy()
    this.awareness.destroy()
    this.doc.destroy()
  }

  #open () {
    this.#provider ??= this.#createProvider()
    this.#provider.serverUrl = this.#credentials.socketUrl
    this.#provider.connect()
  }

  #createProvider () {
    const provider = new WebsocketProvider(this.#credentials.socketUrl, encodeURIComponent(this.name), this.doc, {
      connect: false,
      awareness: this.awareness,
      // Two windows of one browser would otherwise also talk behind the server's back, and the page would prove nothing.
      disableBc: true,
      protocols: ['access_token', this.#credentials.token],
      WebSocketPolyfill: countingWebSocket(this.#meter),
      shouldReconnect: (event) => explainClose(event.code, event.reason).then === 'retry'
    })
    provider.on('status', ({ status }) => {
      if (status === 'connecting') this.#attempting()
      if (status === 'connected') this.#tell('connected')
    })
    provider.on('sync', (synced) => {
      if (!synced) return
      this.#tell('synced')
      setTimeout(() => this.#probe(), FIRST_PROBE_MS)
    })
    provider.on('connection-close', (event) => this.#lost(event))
    return provider
  }

  #attempting () {
    this.#usedToken = this.#provider.protocols[1]
    // While the provider retries by itself, the trouble stays on the screen: flickering between two states says nothing.
    if (this.connection.trouble === null) this.#tell('connecting')
  }

  #lost (event) {
    this.#meter.lost()
    // No event: the provider's own watchdog, after 30 s without a message.
    const close = event === null
      ? { ...explainClose(1006), title: 'Nothing heard from the server for 30 seconds' }
      : explainClose(event.code, event.reason)
    if (close.then === 'stop') return this.#tell('refused', close)
    this.#tell('disconnected', close)
    if (close.then === 'wait') this.#retryIn(close.waitS)
    if (close.then === 'renew') this.#renewOnce(close)
  }

  async #renewOnce (close) {
    const mayRenew = Date.now() - this.#renewedAt > RENEW_AGAIN_MS
    // A renewal by the clock may already have put a newer token in place than the one that was refused.
    if (mayRenew && this.#credentials.token === this.#usedToken) await this.#credentials.refresh().catch(() => {})
    if (this.#closed || this.connection.trouble !== close) return
    if (!mayRenew || this.#credentials.token === this.#usedToken) return this.#tell('refused', close)
    this.#renewedAt = Date.now()
    this.#open()
  }

  /** New credentials arrived: the next attempt uses them; a session that is running keeps running. */
  credentialsChanged () {
    if (this.#provider !== null) this.#provider.protocols = ['access_token', this.#credentials.token]
  }

  #retryIn (seconds) {
    this.connection = { ...this.connection, retryAt: Date.now() + seconds * 1000 }
    this.#onConnection(this.connection)
    this.#retryTimer = setTimeout(() => this.connect(), seconds * 1000)
  }

  #tell (state, trouble = null) {
    if (this.#closed) return
    this.connection = { state, trouble, retryAt: null }
    this.#onConnection(this.connection)
  }

  #probe () {
    const socket = this.#provider?.ws
    if (document.visibilityState !== 'visible' || this.connection.state !== 'synced' || !this.#meter.idle) return
    if (socket?.readyState !== WebSocket.OPEN) return
    this.#meter.probing()
    socket.send(stepOne(Y.encodeStateVector(this.doc)))
  }
}
