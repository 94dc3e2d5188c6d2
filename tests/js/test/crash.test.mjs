// Crashes, with the providers that people use: kill -9 at seeded moments while they write into shared documents. A mark is noted
// only once its provider says that nothing is unsaved; each one noted must be there for whoever comes after the crash.
//
// CRASH_PROVIDER_KILLS=6 CRASH_SEED=…: a seed replays the schedule.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as passes } from 'node:timers/promises'
import { HOCUSPOCUS_KINDS, Y_WEBSOCKET_KINDS, open } from '../harness/clients.mjs'
import { startNode } from '../harness/server.mjs'
import { defer, until } from '../harness/until.mjs'

const KILLS = Number(process.env.CRASH_PROVIDER_KILLS || 6)
const SEED = Number(process.env.CRASH_SEED || Date.now() % 1_000_000_000)

/** mulberry32: `random(n)` is one of 0 to n - 1. */
function schedule (seed) {
  let state = seed >>> 0
  return (end) => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) % end
  }
}

/** Version 2 counts no edits. */
const isSaved = ({ provider, synced }) =>
  synced && (provider.unsyncedChanges === undefined ? !provider.hasUnsyncedChanges : provider.unsyncedChanges === 0)

/** Writes marks until the node is gone. Those are noted that were written before the provider said that all is saved. */
async function write (client, marks, name, filler, life) {
  const unsaved = []
  for (let n = 0; life.goesOn; n++) {
    const mark = `${name}.${n}`
    client.doc.transact(() => {
      client.text.insert(client.text.length, `${mark} `)
      client.doc.getMap('filler').set('filler', String(n % 10).repeat(filler))
    })
    unsaved.push(mark)
    if (n % 3 === 2) continue
    while (life.goesOn && !isSaved(client)) await passes(0)
    // Nothing comes between this look and the provider's last message: both are on this thread.
    if (isSaved(client)) marks.push(...unsaved.splice(0))
  }
}

test(`what a provider takes for saved outlives ${KILLS} kills`, async (t) => {
  t.diagnostic(`CRASH_SEED=${SEED} CRASH_PROVIDER_KILLS=${KILLS}`)
  const random = schedule(SEED)
  const journal = { durability: 'disk', segment_bytes: 65536 }
  const node = await startNode({ journal, sessions: { grace_period_s: 300 } })
  defer(t, () => node.stop())
  const token = await node.mint()
  const noted = new Map()
  for (let kill = 0; kill < KILLS; kill++) {
    const life = { goesOn: true }
    const clients = []
    const writing = []
    for (let n = 0; n < 2 + random(3); n++) {
      const name = `document-${Math.floor(kill / 8)}-${random(3)}`
      const client = open(t, HOCUSPOCUS_KINDS[random(HOCUSPOCUS_KINDS.length)], { url: node.ws, name, token })
      clients.push(client)
      if (!noted.has(name)) noted.set(name, [])
      const filler = [10, 1000, 6000][random(3)]
      writing.push(until('a writer is synced', () => client.synced, { show: () => client })
        .then(() => write(client, noted.get(name), `${kill}.${n}`, filler, life)))
    }
    const after = 5 + random(300)
    await until('everybody writes', () => clients.every(({ synced }) => synced), { show: () => clients })
    await passes(after) // the moment of the crash
    for (const client of clients) client.stayAway()
    await node.kill()
    life.goesOn = false
    await Promise.all(writing)
    // They would bring back what the node had lost.
    for (const client of clients) client.destroy()
    await node.start()
    for (const [name, marks] of noted) {
      const kinds = [...HOCUSPOCUS_KINDS, ...Y_WEBSOCKET_KINDS]
      const late = open(t, kinds[random(kinds.length)], { url: node.ws, name, token })
      await until('the late one is synced', () => late.synced, { show: () => late })
      const found = new Set(late.text.toString().split(' '))
      late.destroy()
      const lost = marks.filter((mark) => !found.has(mark))
      assert.deepEqual(lost, [], `kill ${kill} after ${after} ms, CRASH_SEED=${SEED}, ${late.kind}: lost of ${marks.length} in ${name}`)
    }
  }
  const acknowledged = [...noted.values()].reduce((sum, { length }) => sum + length, 0)
  assert.ok(acknowledged > KILLS, `only ${acknowledged} marks were ever saved`)
  t.diagnostic(`0 lost of ${acknowledged} that providers took for saved, in ${KILLS} kills, seed ${SEED}`)
})
