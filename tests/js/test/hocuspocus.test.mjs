// What only Hocuspocus does: many documents on one socket, and refusals that leave the socket open.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { HOCUSPOCUS_KINDS, allMove, allSaved, allSeeEachOther, allSynced, closeSocket, open, openSocket, sameText } from '../harness/clients.mjs'
import { Proxy } from '../harness/proxy.mjs'
import { freshName, startDev } from '../harness/server.mjs'
import { defer, until } from '../harness/until.mjs'

const PARTNER = 'y-websocket 3.1.0'
const V4 = 'hocuspocus 4.8.0'

let server

before(async () => { server = await startDev({ shards: 4 }) })
after(() => server?.stop())

function sharedSocket (t, kind, url = server.ws) {
  const socket = openSocket(kind, url)
  defer(t, () => closeSocket(socket))
  return socket
}

for (const kind of HOCUSPOCUS_KINDS) {
  test(`${kind}: twelve documents on one socket, over four shards, each converge with a y-websocket client`, async (t) => {
    const proxy = await Proxy.start(t, server)
    const socket = sharedSocket(t, kind, proxy.ws)
    const pairs = Array.from({ length: 12 }, () => {
      const name = freshName()
      const pair = [open(t, kind, { socket, name, token: server.token }), open(t, PARTNER, { url: server.ws, name, token: server.token })]
      for (const client of pair) {
        client.awareness.setLocalState({ who: client.kind })
        client.text.insert(0, `${name} of ${client.kind}\n`)
      }
      return pair
    })
    for (const pair of pairs) {
      await sameText(pair, pair.reduce((sum, { name, kind }) => sum + name.length + kind.length + 5, 0))
      await allSeeEachOther(pair)
    }
    await allSaved(pairs.flat())
    assert.equal(proxy.connections, 1)
    // One of them leaves; the others stay.
    const [[leaving, left], ...others] = pairs
    leaving.destroy()
    await until('the document that was left is empty but for the partner', () => left.others.length === 0, { show: () => left })
    for (const pair of others) {
      pair[0].text.insert(0, 'more')
      await sameText(pair, pair[0].text.length)
      await allSeeEachOther(pair)
    }
    await allSaved(others.flat())
    assert.equal(proxy.connections, 1)
  })

  test(`${kind}: all documents of a shared socket come back when it breaks`, async (t) => {
    const proxy = await Proxy.start(t, server)
    const socket = sharedSocket(t, kind, proxy.ws)
    const pairs = Array.from({ length: 6 }, () => {
      const name = freshName()
      return [open(t, kind, { socket, name, token: server.token }), open(t, PARTNER, { url: server.ws, name, token: server.token })]
    })
    for (const client of pairs.flat()) client.awareness.setLocalState({ who: client.kind })
    await allSynced(pairs.flat())
    proxy.pause()
    await until('the socket noticed', () => socket.status !== 'connected')
    for (const client of pairs.flat()) client.text.insert(0, 'offline')
    proxy.resume()
    for (const pair of pairs) {
      await sameText(pair, 14)
      allMove(pair)
      await allSeeEachOther(pair)
    }
    await allSaved(pairs.flat())
  })

  test(`${kind}: a document can be left and opened again on the same socket`, async (t) => {
    const socket = sharedSocket(t, kind)
    const name = freshName()
    const partner = open(t, PARTNER, { url: server.ws, name, token: server.token })
    for (let time = 1; time <= 3; time++) {
      const client = open(t, kind, { socket, name, token: server.token })
      client.awareness.setLocalState({ who: kind })
      client.text.insert(0, 'x')
      await sameText([client, partner], time)
      await allSaved([client])
      await until('the partner sees it', () => partner.others.includes(kind), { show: () => partner })
      client.destroy()
      await until('the partner is alone', () => partner.others.length === 0, { show: () => partner })
    }
  })

  test(`${kind}: a wrong token is denied in band, with its code, and does not make it reconnect`, async (t) => {
    const proxy = await Proxy.start(t, server)
    const socket = sharedSocket(t, kind, proxy.ws)
    const denied = open(t, kind, { socket, name: freshName(), token: 'not.a.token' })
    await until('it is denied', () => denied.denials.length > 0, { show: () => denied })
    assert.match(denied.denials[0], /^4002 ./)
    // A client that stormed would do so while its neighbour on the socket works through these.
    const good = open(t, kind, { socket, name: freshName(), token: server.token })
    for (let edit = 0; edit < 60; edit++) {
      good.text.insert(0, 'x')
      denied.text.insert(0, 'x')
      await allSaved([good])
    }
    assert.equal(proxy.connections, 1)
    assert.deepEqual(denied.closes, [])
    assert.ok(denied.denials.length <= 2, `denied ${denied.denials.length} times`)
    assert.equal(denied.synced, false)
  })

  test(`${kind}: a bad name is denied in band beside a good document`, async (t) => {
    const socket = sharedSocket(t, kind)
    const denied = open(t, kind, { socket, name: 'no spaces, please', token: server.token })
    await until('it is denied', () => denied.denials.length > 0, { show: () => denied })
    assert.match(denied.denials[0], /^4007 ./)
    const good = open(t, kind, { socket, name: freshName(), token: server.token })
    await allSaved([good])
    assert.deepEqual(good.closes, [])
  })

  test(`${kind}: the token of the URL opens documents that bring none`, async (t) => {
    const name = freshName()
    const client = open(t, kind, { url: `${server.ws}/?token=${server.token}`, name })
    const partner = open(t, PARTNER, { url: server.ws, name, token: server.token })
    client.text.insert(0, 'hello')
    await sameText([client, partner], 5)
    await allSaved([client])
  })
}

test('session awareness: two providers of one document on one socket are two people', async (t) => {
  const proxy = await Proxy.start(t, server)
  const socket = sharedSocket(t, V4, proxy.ws)
  const name = freshName()
  const options = { sessionAwareness: true }
  const [one, two] = [1, 2].map(() => open(t, V4, { socket, name, token: server.token, options }))
  const partner = open(t, PARTNER, { url: server.ws, name, token: server.token })
  one.awareness.setLocalState({ who: 'one' })
  two.awareness.setLocalState({ who: 'two' })
  partner.awareness.setLocalState({ who: 'partner' })
  one.text.insert(0, 'one')
  two.text.insert(0, 'two')
  partner.text.insert(0, 'partner')
  await sameText([one, two, partner], 13)
  await allSeeEachOther([one, two, partner])
  await allSaved([one, two])
  proxy.drop()
  two.text.insert(0, 'again')
  await sameText([one, two, partner], 18)
  allMove([one, two, partner])
  await allSeeEachOther([one, two, partner])
  one.destroy()
  await allSeeEachOther([two, partner])
  two.text.insert(0, 'still here')
  await sameText([two, partner], 28)
})
