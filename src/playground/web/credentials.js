// Where the server is and the token that opens it: config.json of the page's own origin, fetched again when the token nears its end.
const CONFIG_URL = '/playground/config.json'
const RENEW_BEFORE_END_MS = 60_000
const RENEW_LEAST_MS = 5_000
const FETCH_TIMEOUT_MS = 10_000
// setTimeout counts in 32 bits; a longer wait is made of several.
const TIMER_MS_MAX = 2 ** 31 - 1

export class Credentials {
  /** The last config.json, or null before the first. */
  config = null
  #timer = null
  #onChange

  constructor (onChange) {
    this.#onChange = onChange
  }

  get token () {
    return this.config?.token ?? ''
  }

  /** The server's WebSocket address as this page reaches it; a `direct` one is a node's own, elsewhere than the page. */
  get socketUrl () {
    return this.config.direct ? this.config.ws : socketUrl(this.config.ws, window.location)
  }

  /** Fetches config.json; throws an Error that a person can read. */
  async refresh () {
    const config = await fetchConfig()
    this.config = config
    this.#scheduleRenewal()
    this.#onChange(this)
    return config
  }

  #scheduleRenewal () {
    clearTimeout(this.#timer)
    const wait = renewInMs(this.token, Date.now())
    if (wait === null) return
    const step = Math.min(wait, TIMER_MS_MAX)
    this.#timer = setTimeout(() => {
      if (step < wait) return this.#scheduleRenewal()
      // A failure here is no news: the close code 4002 will ask again, with the person watching.
      this.refresh().catch(() => {})
    }, step)
  }
}

async function fetchConfig () {
  let response
  try {
    response = await fetch(CONFIG_URL, { cache: 'no-store', signal: AbortSignal.timeout(FETCH_TIMEOUT_MS) })
  } catch (cause) {
    throw new Error('The server that this page came from does not answer. Is wiresocket dev still running?', { cause })
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => null)
    throw new Error(problem?.detail ?? `The server answered ${response.status} when asked for ${CONFIG_URL}. Open the playground from an app's page, or with wiresocket dev.`)
  }
  const config = await response.json().catch(() => null)
  if (typeof config?.ws !== 'string' || typeof config?.token !== 'string') {
    throw new Error(`${CONFIG_URL} holds no server address and token. Are the page and the server of the same version?`)
  }
  return config
}

/**
 * A page opened from a phone on the same network, or through a forwarded port, reaches the server where it reached the
 * page, not at the loopback address that the server knows itself by.
 */
export function socketUrl (configured, location) {
  const url = new URL(configured)
  if (url.host === location.host) return configured.replace(/\/+$/, '')
  return `${location.protocol === 'https:' ? 'wss:' : 'ws:'}//${location.host}`
}

/** Milliseconds until the token should be renewed, or null if it has no end that we can read. */
export function renewInMs (token, nowMs) {
  const claims = readClaims(token)
  if (typeof claims?.exp !== 'number') return null
  const leftMs = claims.exp * 1000 - nowMs
  // An expired one is the business of close code 4002. A short-lived one is renewed at nine tenths of what is left.
  if (leftMs <= 0) return null
  return Math.max(RENEW_LEAST_MS, leftMs - RENEW_BEFORE_END_MS, leftMs * 0.9)
}

function readClaims (token) {
  try {
    const payload = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/')
    return JSON.parse(atob(payload))
  } catch {
    return null
  }
}
