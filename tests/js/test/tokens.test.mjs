// Tokens over a session's life: renewed in band, run out, refused for good.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { HOCUSPOCUS_KINDS, Y_WEBSOCKET_KINDS, allSaved, allSynced, open, sameText } from '../harness/clients.mjs'
import { Proxy } from '../harness/proxy.mjs'
import { expiresIn, freshName, startNode } from '../harness/server.mjs'
import { until } from '../harness/until.mjs'

const [V2, ...RENEWING] = HOCUSPOCUS_KINDS
const SHORT_S = 4

let node
// The same, but refusals close with codes that y-websocket 3.1 gives up on.
let permanent

before(async () => {
  [node, permanent] = await Promise.all([
    startNode({ auth: { renew_before_s: 2 } }),
    startNode({ auth: { rejection: 'close', permanent_close_codes: true } })
  ])
})
after(() => Promise.all([node?.stop(), permanent?.stop()]))

/** A token function whose first token is short-lived; `asked` counts. */
async function renewable () {
  const [first, later] = [await node.mint({ exp: expiresIn(SHORT_S) }), await node.mint()]
  const source = { asked: 0, token: async () => (source.asked++ === 0 ? first : later) }
  return source
}

test('who is asked for a new token in band outlives the first one; who is not ends with 4002 Token expired', async (t) => {
  const name = freshName()
  const renewing = await Promise.all(RENEWING.map(async (kind) => {
    const [proxy, source] = [await Proxy.start(t, node), await renewable()]
    return { proxy, source, client: open(t, kind, { url: proxy.ws, name, token: source.token }) }
  }))
  const v2Source = await renewable()
  const v2 = open(t, V2, { url: node.ws, name, token: v2Source.token })
  const short = await node.mint({ exp: expiresIn(SHORT_S) })
  const others = Y_WEBSOCKET_KINDS.map((kind) => open(t, kind, { url: node.ws, name, token: short }))
  await allSynced([...renewing.map(({ client }) => client), v2, ...others])

  await until('the first tokens ran out', () => others.every(({ closes }) => closes.length > 0) && v2.denials.length > 0,
    { show: () => [v2, ...others] })
  for (const { closes, kind } of others) {
    assert.deepEqual([closes[0].code, String(closes[0].reason)], [4002, 'Token expired'], kind)
  }
  assert.deepEqual(v2.denials, ['4002 Token expired'])
  assert.deepEqual(v2.closes, [], 'the socket stays open')

  const clients = renewing.map(({ client }) => client)
  for (const client of clients) client.text.insert(0, 'still here')
  await sameText(clients, 10 * clients.length)
  await allSaved(clients)
  for (const { client, proxy, source } of renewing) {
    assert.equal(source.asked, 2, `${client.kind} was asked once more`)
    assert.equal(proxy.connections, 1, `${client.kind} kept its socket`)
    assert.deepEqual(client.denials, [], client.kind)
  }
})

test('a renewal with a token that is no good ends that document with the reason', async (t) => {
  const first = await node.mint({ exp: expiresIn(SHORT_S) })
  let asked = 0
  const [kind] = RENEWING
  const client = open(t, kind, { url: node.ws, name: freshName(), token: () => (asked++ === 0 ? first : 'no.good.token') })
  await allSynced([client])
  await until('it is denied', () => client.denials.length > 0, { show: () => client })
  assert.equal(asked, 2)
  assert.match(client.denials[0], /^4002 ./)
  assert.deepEqual(client.closes, [])
})

test('y-websocket: a refused token is an HTTP status for a client that is not a browser', async (t) => {
  const client = open(t, 'y-websocket 3.1.0', { url: node.ws, name: freshName(), token: 'not.a.token' })
  const error = await new Promise((resolve) => client.provider.once('connection-error', resolve))
  assert.match(error.message, /401/)
})

test('permanent close codes stop y-websocket 3.1.0, while 2.1.0 goes on trying', async (t) => {
  const [stopping, stubborn] = await Promise.all(['y-websocket 3.1.0', 'y-websocket 2.1.0'].map(async (kind) => {
    const proxy = await Proxy.start(t, permanent)
    return { proxy, client: open(t, kind, { url: proxy.ws, name: freshName(), token: 'not.a.token' }) }
  }))
  await until('the stubborn one tried five times', () => stubborn.proxy.connections >= 5)
  assert.equal(stopping.proxy.connections, 1)
  assert.deepEqual(stopping.client.closes.map(({ code }) => code), [4401])
  assert.equal(stopping.client.provider.shouldConnect, false)
  assert.ok(stubborn.client.closes.every(({ code }) => code === 4401))
})

const FORMS = {
  'the query, before the room that y-websocket appends': (token) => ({ url: `${node.ws}?token=${token}` }),
  'the query as access_token': (token) => ({ url: `${node.ws}?access_token=${token}` }),
  'params': (token) => ({ url: node.ws, options: { params: { token } } }),
  'sub-protocol access_token': (token) => ({ url: node.ws, options: { protocols: ['access_token', token] } }),
  'sub-protocol Bearer': (token) => ({ url: node.ws, options: { protocols: ['Bearer', token] } })
}

for (const [form, where] of Object.entries(FORMS)) {
  for (const kind of Y_WEBSOCKET_KINDS) {
    // Version 1 has no sub-protocols.
    if (form.startsWith('sub-protocol') && kind.includes(' 1.')) continue
    test(`${kind}: a token in ${form}`, async (t) => {
      const [name, token] = [freshName(), await node.mint()]
      const clients = [open(t, kind, { name, ...where(token) }), open(t, V2, { name, url: node.ws, token })]
      clients[0].text.insert(0, 'hello')
      await sameText(clients, 5)
    })
  }
}

test("discovery's URL leads y-websocket to the document, although the provider appends its name again", async (t) => {
  const [name, token] = [freshName(), await node.mint()]
  const discover = async () => {
    const answer = await fetch(`${node.http}/discovery?documentName=${name}`, { headers: { authorization: `Bearer ${token}` } })
    assert.equal(answer.status, 200)
    return answer.json()
  }
  const { url, region, isNew } = await discover()
  assert.equal(url, `${node.ws}/${name}`)
  assert.equal(typeof region, 'string')
  assert.equal(isNew, true)
  const direct = open(t, 'y-websocket 3.1.0', { url: node.ws, name, token })
  const clients = [direct, ...Y_WEBSOCKET_KINDS.map((kind) => open(t, kind, { url, name, token }))]
  direct.text.insert(0, 'the same document')
  await sameText(clients, 17)
  assert.equal((await discover()).isNew, false)
})
