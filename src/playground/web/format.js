// Figures as people read them.

export function formatBytes (count) {
  if (count < 1000) return `${count} B`
  for (const unit of ['kB', 'MB', 'GB']) {
    count /= 1000
    if (count < 999.5 || unit === 'GB') return `${count < 9.95 ? count.toFixed(1) : Math.round(count)} ${unit}`
  }
}

export function formatMs (ms) {
  if (ms === null) return '–'
  if (ms < 0.1) return '<0.1 ms'
  return `${ms < 9.95 ? ms.toFixed(1) : Math.round(ms)} ms`
}

export function formatCount (count) {
  return count.toLocaleString('en')
}

export function peopleHere (count) {
  return count === 1 ? 'Only you here' : `${count} people here`
}

/** A token as it may stand on a screen: enough to tell two apart, not enough to use. */
export function abbreviateToken (token) {
  return token.length <= 24 ? token : `${token.slice(0, 10)}…${token.slice(-6)}`
}
