// What a close code means to the person in front of the page, and what the page does about it.
//
// `then` is the page's part:
//   'stop'   nothing will change by itself: wait for the Reconnect button
//   'renew'  a fresh token may mend it: fetch one, try it once, otherwise stop
//   'wait'   room may come back: try again after `waitS` seconds (a range, drawn at random so that clients spread)
//   'retry'  the network's business: y-websocket's own back-off
const CODES = {
  4001: {
    title: 'The server got no access token',
    advice: 'Reload the page. If it stays, check that a proxy in between passes the Sec-WebSocket-Protocol header on.',
    then: 'renew'
  },
  4002: {
    title: 'The access token was not accepted',
    advice: 'It may have expired, or the server may have restarted with new keys. Reload the page to get a new one.',
    then: 'renew'
  },
  4003: {
    title: 'This page’s address is not allowed',
    advice: 'The token names the domains it may be used from. Open the playground at the address that wiresocket dev printed, or add this one to the app’s allowed domains.',
    then: 'stop'
  },
  4004: {
    title: 'All of the app’s connections are in use',
    advice: 'Close a window that you don’t need, or raise maxConnections in the token’s limits.',
    then: 'wait',
    waitS: [8, 16]
  },
  4005: {
    title: 'All of the app’s documents are in use',
    advice: 'Open a document that is already in use, wait for one to close, or raise maxDocuments.',
    then: 'wait',
    waitS: [8, 16]
  },
  4006: {
    title: 'Too many edits in a minute',
    advice: 'The app’s opsPerMinute are spent. Your text is still here and is sent with the next attempt.',
    then: 'wait',
    waitS: [15, 30]
  },
  4007: {
    title: 'That is not a document name',
    advice: 'Use 1 to 255 letters, digits, hyphens and underscores. Choose another name at the top.',
    then: 'stop'
  },
  4008: {
    title: 'This document is full',
    advice: 'As many people are in it as the app’s maxUsersPerDoc allows. Wait for somebody to leave, or open another document.',
    then: 'wait',
    waitS: [8, 16]
  },
  4009: {
    title: 'This document lives in another region',
    advice: 'Open it at the node that the server named.',
    then: 'stop'
  },
  1002: {
    title: 'The server could not read a message',
    advice: 'Something between this page and the server may have altered it. If it repeats, please report it.',
    then: 'wait',
    waitS: [5, 10]
  },
  1009: {
    title: 'An edit was larger than the server takes',
    advice: 'Undo the last large paste, then reconnect. The server’s limit on message or document size can be raised.',
    then: 'stop'
  },
  1011: {
    title: 'The server ran into a fault of its own',
    advice: 'Your text is still here. The server’s log says more.',
    then: 'wait',
    waitS: [3, 6]
  },
  1012: {
    title: 'The server is restarting',
    advice: 'You can keep typing: your edits are sent when it is back.',
    then: 'wait',
    waitS: [1, 4]
  },
  1013: {
    title: 'The server is overloaded',
    advice: 'You can keep typing: your edits are sent when it has room again.',
    then: 'wait',
    waitS: [5, 15]
  },
  1006: {
    title: 'The server can’t be reached',
    advice: 'Is wiresocket dev still running? You can keep typing: your edits are sent when it is back.',
    then: 'retry'
  }
}

// The same refusals under `permanent_close_codes = true`, and the neighbours of a malformed message.
const SAME_AS = { 4401: 4002, 4403: 4003, 4407: 4007, 1003: 1002, 1007: 1002 }

const UNKNOWN = {
  title: 'The connection was closed',
  advice: 'You can keep typing: your edits are sent when it is back.',
  then: 'retry'
}

const HINT_S_MAX = 120

/**
 * @param {number} code as the close event has it
 * @param {string} reason
 * @param {() => number} random in [0, 1)
 */
export function explainClose (code, reason = '', random = Math.random) {
  const entry = CODES[SAME_AS[code] ?? code] ?? (code >= 4400 && code < 4500 ? { ...UNKNOWN, then: 'stop' } : UNKNOWN)
  const explanation = { code, reason, title: entry.title, advice: entry.advice, then: entry.then, waitS: null, redirect: null }
  if (entry.then === 'wait') {
    const [least, most] = entry.waitS
    const hint = retryHintS(reason)
    // The server's own hint is already spread over its clients; a little of our own on top costs nothing.
    explanation.waitS = hint === null ? least + random() * (most - least) : hint + random()
  }
  if (code === 4009 && reason.startsWith('REDIRECT:')) explanation.redirect = reason.slice('REDIRECT:'.length)
  return explanation
}

/** The `retry after 7 s` of codes 1012 and 1013, in seconds, or null. */
function retryHintS (reason) {
  const found = /retry after (\d+)\s*s\b/i.exec(reason)
  return found === null ? null : Math.min(Number(found[1]), HINT_S_MAX)
}
