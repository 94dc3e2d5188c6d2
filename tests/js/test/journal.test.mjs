// The journal, with the providers that people use: what a provider takes for saved is there after kill -9.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { HOCUSPOCUS_KINDS, Y_WEBSOCKET_KINDS, allSynced, open } from '../harness/clients.mjs'
import { freshName, startNode } from '../harness/server.mjs'
import { defer, until } from '../harness/until.mjs'

const SYNC_STATUS = 8

async function startKeeping (t, journal = {}) {
  const node = await startNode({ journal: { durability: 'disk', ...journal } })
  defer(t, () => node.stop())
  return node
}

/** The provider says that all its edits are saved. Version 2 counts no edits. */
const isSaved = ({ provider }) => provider.unsyncedChanges === undefined ? !provider.hasUnsyncedChanges : provider.unsyncedChanges === 0

/** What somebody sees who comes after everybody else has gone for good. */
async function lateText (t, node, token, name, kind) {
  const late = open(t, kind, { url: node.ws, name, token })
  await until('the late one is synced', () => late.synced, { show: () => late })
  const text = late.text.toString()
  late.destroy()
  return text
}

for (const kind of HOCUSPOCUS_KINDS) {
  test(`${kind}: unsyncedChanges === 0 means that it outlives kill -9`, async (t) => {
    const node = await startKeeping(t)
    const token = await node.mint()
    for (let round = 0; round < 5; round++) {
      const name = freshName()
      const writer = open(t, kind, { url: node.ws, name, token })
      await until('the writer is synced', () => writer.synced, { show: () => writer })
      let saved = ''
      for (let n = 0; n < 40; n++) {
        writer.text.insert(writer.text.length, `${n} `)
        const text = writer.text.toString()
        await until('the edit is saved', () => isSaved(writer), { show: () => writer })
        saved = text
      }
      // These may be lost: nobody says that they are saved.
      for (let n = 0; n < round; n++) writer.text.insert(writer.text.length, 'unsaved ')
      writer.stayAway()
      await node.kill()
      writer.destroy()
      await node.start()
      const text = await lateText(t, node, token, name, kind)
      assert.ok(text.startsWith(saved), `round ${round}: ${text} lacks some of ${saved}`)
    }
  })
}

test('a y-websocket client that asks hears which of its updates are stored', async (t) => {
  const node = await startKeeping(t)
  const token = await node.mint()
  const name = freshName()
  const kind = Y_WEBSOCKET_KINDS[2]
  let stored = 0
  const writer = open(t, kind, { url: node.ws, name, token, options: { params: { acknowledge: 'true' }, connect: false } })
  writer.provider.messageHandlers[SYNC_STATUS] = () => { stored += 1 }
  writer.provider.connect()
  await until('its step 2 is stored', () => stored === 1, { show: () => writer })
  for (let n = 0; n < 30; n++) {
    writer.text.insert(writer.text.length, `${n} `)
    await until('the edit is stored', () => stored === n + 2, { show: () => ({ writer, stored }) })
  }
  const saved = writer.text.toString()
  writer.stayAway()
  await node.kill()
  writer.destroy()
  await node.start()
  assert.equal(await lateText(t, node, token, name, kind), saved)
})

for (const kind of Y_WEBSOCKET_KINDS) {
  test(`${kind}: an acknowledgement that a client does not know is ignored`, async (t) => {
    const node = await startKeeping(t)
    const token = await node.mint()
    const params = kind.includes(' 1.') ? { token, acknowledge: 'true' } : { acknowledge: 'true' }
    const complaint = t.mock.method(console, 'error', () => {})
    const where = { url: node.ws, name: freshName(), token }
    const clients = [open(t, kind, { ...where, options: { params } }), open(t, kind, where)]
    await allSynced(clients)
    for (let n = 0; n < 10; n++) clients[0].text.insert(0, 'x')
    await until('the other has it', () => clients[1].text.length === 10, { show: () => clients })
    await until('the client was told', () => complaint.mock.callCount() > 5)
    clients[1].text.insert(0, 'y')
    await until('it is still in sync', () => clients[0].text.length === 11, { show: () => clients })
    assert.deepEqual(clients.map(({ closes }) => closes), [[], []])
  })
}

test('a document that is kept for ever is whole for the first client, whatever its provider', async (t) => {
  const node = await startKeeping(t, { retention: 'forever' })
  const token = await node.mint()
  for (const kind of [...HOCUSPOCUS_KINDS, ...Y_WEBSOCKET_KINDS]) {
    const name = freshName()
    const writer = open(t, HOCUSPOCUS_KINDS[2], { url: node.ws, name, token })
    await until('the writer is synced', () => writer.synced, { show: () => writer })
    writer.text.insert(0, 'written once')
    await until('it is saved', () => isSaved(writer), { show: () => writer })
    writer.destroy()
    await node.restart()
    // Providers call an application back when they are synced: it must not take the document for a new one.
    assert.equal(await lateText(t, node, token, name, kind), 'written once')
  }
})
