// Counts what passes over the WebSocket, and times the round trip, by watching the socket itself.
//
// A round trip is a sync step 1 that we sent as a probe and the sync step 2 that answers it: it crosses the same path
// as an edit, through the server's document, which a WebSocket ping would not.
const SYNC = 0
const STEP_1 = 0
const STEP_2 = 1

export class Meter {
  bytesIn = 0
  bytesOut = 0
  messagesIn = 0
  messagesOut = 0
  /** Milliseconds; null until measured, and again after the connection is lost. */
  roundTripMs = null
  #probeSentAt = null
  #now

  constructor (now = () => performance.now()) {
    this.#now = now
  }

  sent (data) {
    this.bytesOut += byteLength(data)
    this.messagesOut++
  }

  received (data) {
    this.bytesIn += byteLength(data)
    this.messagesIn++
    if (this.#probeSentAt !== null && isSync(data, STEP_2)) {
      this.roundTripMs = this.#now() - this.#probeSentAt
      this.#probeSentAt = null
    }
  }

  /** Whether a probe may be sent: one at a time, so that an answer can't be taken for another's. */
  get idle () {
    return this.#probeSentAt === null
  }

  probing () {
    this.#probeSentAt = this.#now()
  }

  /** The connection is gone: its probe stays unanswered and its round trip says nothing any more. */
  lost () {
    this.#probeSentAt = null
    this.roundTripMs = null
  }
}

/** A sync step 1 as y-websocket frames it. */
export function stepOne (stateVector) {
  const length = []
  let rest = stateVector.length
  while (rest > 0x7f) {
    length.push((rest & 0x7f) | 0x80)
    rest >>>= 7
  }
  length.push(rest)
  return Uint8Array.from([SYNC, STEP_1, ...length, ...stateVector])
}

/** A WebSocket class for the provider's `WebSocketPolyfill`, reporting to `meter`. */
export function countingWebSocket (meter, Base = WebSocket) {
  return class CountingWebSocket extends Base {
    constructor (url, protocols) {
      super(url, protocols)
      this.addEventListener('message', (event) => meter.received(event.data))
    }

    send (data) {
      meter.sent(data)
      super.send(data)
    }
  }
}

function byteLength (data) {
  return typeof data === 'string' ? new TextEncoder().encode(data).length : data.byteLength ?? data.size ?? 0
}

function isSync (data, step) {
  if (typeof data === 'string') return false
  const bytes = data instanceof ArrayBuffer ? new Uint8Array(data) : data
  return bytes[0] === SYNC && bytes[1] === step
}
