// Connections that break: everybody comes back by themselves, with what they wrote meanwhile and as who they were.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { KINDS, allMove, allSaved, allSeeEachOther, allSynced, open, openAll, sameText } from '../harness/clients.mjs'
import { Proxy } from '../harness/proxy.mjs'
import { freshName, startDev, startNode } from '../harness/server.mjs'
import { defer, until } from '../harness/until.mjs'

// Awareness is renewed every 15 s by itself: what is seen before that, the reconnection brought.
const BEFORE_RENEWAL_MS = 9_000

let server

before(async () => { server = await startDev({ shards: 4 }) })
after(() => server?.stop())

test('edits made offline on both sides merge when the connections are back', async (t) => {
  const proxy = await Proxy.start(t, server)
  const name = freshName()
  const cutOff = openAll(t, { url: proxy.ws, name, token: server.token })
  const stayed = KINDS.map((kind) => open(t, kind, { url: server.ws, name, token: server.token }))
  const everybody = [...cutOff, ...stayed]
  await allSynced(everybody)
  cutOff[0].text.insert(0, 'before ')
  await sameText(everybody, 7)
  proxy.pause()
  await until('the six noticed', () => cutOff.every((client) => !client.connected), { show: () => cutOff })
  for (const client of everybody) client.text.insert(client.text.length, 'offline ')
  await sameText(stayed, 7 + 8 * stayed.length)
  proxy.resume()
  await sameText(everybody, 7 + 8 * everybody.length)
  await allSaved(everybody)
})

test('a connection that breaks under steady typing loses nothing', async (t) => {
  const proxy = await Proxy.start(t, server)
  const name = freshName()
  const clients = openAll(t, { url: proxy.ws, name, token: server.token })
  await allSynced(clients)
  for (let round = 1; round <= 4; round++) {
    for (const client of clients) {
      client.text.insert(0, 'a')
      if (client === clients[3]) proxy.drop()
      client.text.insert(client.text.length, 'b')
    }
    await sameText(clients, round * clients.length * 2)
  }
  await allSaved(clients)
  assert.ok(proxy.connections > 2 * clients.length, 'the connections did break')
})

for (const kind of KINDS) {
  test(`${kind}: who reconnects is visible again at once`, async (t) => {
    const proxy = await Proxy.start(t, server)
    const name = freshName()
    const watchers = [KINDS[2], KINDS[5]].map((watcher) => open(t, watcher, { url: server.ws, name, token: server.token }))
    const client = open(t, kind, { url: proxy.ws, name, token: server.token })
    client.awareness.setLocalState({ who: 'wanderer' })
    const visible = (yes) => until(`the wanderer is ${yes ? '' : 'in'}visible`,
      () => watchers.every(({ others }) => others.includes('wanderer') === yes),
      { show: () => [client, ...watchers], deadlineMs: BEFORE_RENEWAL_MS })
    await visible(true)
    for (let time = 0; time < 2; time++) {
      proxy.pause()
      await visible(false)
      proxy.resume()
      await visible(true)
    }
  })
}

test('all who reconnect together see each other at once', async (t) => {
  const proxy = await Proxy.start(t, server)
  const clients = openAll(t, { url: proxy.ws, name: freshName(), token: server.token })
  await allSeeEachOther(clients)
  proxy.pause()
  await until('everybody is alone', () => clients.every(({ connected }) => !connected), { show: () => clients })
  proxy.resume()
  await until('everybody is back', () => clients.every(({ connected }) => connected), { show: () => clients })
  await allSeeEachOther(clients)
})

test('a node that drains says 1012 to y-websocket and Hocuspocus alike, and exits with 0', async (t) => {
  const node = await startNode()
  const token = await node.mint()
  const clients = openAll(t, { url: node.ws, name: freshName(), token })
  await allSynced(clients)
  // A new connection would only find that nobody listens any more.
  for (const client of clients) client.stayAway()
  await node.stop()
  await until('everybody was told', () => clients.every(({ closes }) => closes.length > 0), { show: () => clients })
  for (const { kind, closes } of clients) {
    assert.equal(closes[0].code, 1012, kind)
    assert.match(String(closes[0].reason), /^Draining/, kind)
  }
})

test('all providers survive a restart of the server, and bring the document back', async (t) => {
  const node = await startNode()
  defer(t, () => node.stop())
  const clients = openAll(t, { url: node.ws, name: freshName(), token: await node.mint() })
  await allSynced(clients)
  clients[0].text.insert(0, 'kept')
  await sameText(clients, 4)
  await node.restart()
  clients[5].text.insert(4, ' on')
  await sameText(clients, 7)
  await allSynced(clients)
  await allSaved(clients)
  allMove(clients)
  await allSeeEachOther(clients)
  const newcomer = open(t, KINDS[0], { url: node.ws, name: clients[0].name, token: await node.mint() })
  await sameText([newcomer, ...clients], 7)
})
