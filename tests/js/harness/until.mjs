// Waiting for something to become true, and cleaning up in the reverse order of setting up.
import { inspect } from 'node:util'

const POLL_EVERY_MS = 10
const DEADLINE_MS = 12_000

/**
 * Resolves with what `condition` returned once that is truthy; rejects at the deadline with `what` and what `show` says.
 *
 * @template T
 * @param {string} what "everybody is synced"
 * @param {() => T | Promise<T>} condition
 * @param {{ show?: () => unknown, deadlineMs?: number }} [options]
 * @returns {Promise<T>}
 */
export async function until (what, condition, { show, deadlineMs = DEADLINE_MS } = {}) {
  const deadline = Date.now() + deadlineMs
  for (;;) {
    const outcome = await condition()
    if (outcome) return outcome
    if (Date.now() > deadline) {
      const seen = show === undefined ? '' : `\nseen: ${inspect(await show(), { depth: 4, breakLength: 120 })}`
      throw new Error(`still not true after ${deadlineMs} ms: ${what}${seen}`)
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_EVERY_MS))
  }
}

const stacks = new WeakMap()

/** Runs `undo` when the test is over, the latest first. All run, even if one fails. */
export function defer (t, undo) {
  const stack = stacks.get(t)
  if (stack !== undefined) {
    stack.push(undo)
    return
  }
  const undos = [undo]
  stacks.set(t, undos)
  t.after(async () => {
    const failures = []
    for (const next of undos.reverse()) await Promise.resolve().then(next).catch((error) => failures.push(error))
    if (failures.length > 0) throw failures[0]
  })
}
