// An idle connection brings data often enough for clients that would drop it otherwise. On bare sockets, to see frames.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import * as decoding from 'lib0/decoding'
import * as encoding from 'lib0/encoding'
import WebSocket from 'ws'
import { freshName, startNode } from '../harness/server.mjs'
import { defer, until } from '../harness/until.mjs'

const EMPTY_AWARENESS = '010100'

let node

before(async () => {
  node = await startNode({
    limits: { handshake_timeout_s: 1, authentication_timeout_s: 1 },
    sessions: { keep_alive_interval_s: 0.2, ping_interval_s: 0.3, idle_timeout_s: 1 }
  })
})
after(() => node?.stop())

/** A socket that collects what it is sent, as hexadecimal text. */
async function rawSocket (t, path, protocols, options) {
  const socket = new WebSocket(`${node.ws}/${path}`, protocols, options)
  const seen = { socket, frames: [], pings: 0, closed: null }
  socket.on('message', (data) => seen.frames.push(data.toString('hex')))
  socket.on('ping', () => { seen.pings += 1 })
  socket.on('close', (code, reason) => { seen.closed = { code, reason: reason.toString() } })
  defer(t, () => socket.terminate())
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
  return seen
}

/** A Hocuspocus frame as hexadecimal text. */
function hocuspocus (name, ...fields) {
  const encoder = encoding.createEncoder()
  encoding.writeVarString(encoder, name)
  for (const field of fields) typeof field === 'number' ? encoding.writeVarUint(encoder, field) : encoding.writeVarString(encoder, field)
  return Buffer.from(encoding.toUint8Array(encoder))
}

test('a silent y-websocket connection is sent empty awareness, again and again, and stays open', async (t) => {
  const seen = await rawSocket(t, freshName(), ['access_token', await node.mint()])
  const keepAlives = () => seen.frames.filter((frame) => frame === EMPTY_AWARENESS).length
  await until('ten empty awareness messages', () => keepAlives() >= 10, { show: () => seen.frames })
  assert.equal(seen.frames.length - keepAlives(), 1, 'beside the step 1 at the beginning nothing else was sent')
  assert.ok(seen.pings > 0, 'it was pinged, too')
  assert.equal(seen.closed, null)
})

test('a silent Hocuspocus connection is sent empty awareness of its document', async (t) => {
  const [name, token] = [freshName(), await node.mint()]
  const seen = await rawSocket(t, '')
  seen.socket.send(hocuspocus(name, 2, 0, token))
  const keepAlive = hocuspocus(name, 1, 1, 0).toString('hex')
  await until('five of them', () => seen.frames.filter((frame) => frame === keepAlive).length >= 5, { show: () => seen.frames })
  const first = decoding.createDecoder(Buffer.from(seen.frames[0], 'hex'))
  assert.equal(decoding.readVarString(first), name)
  assert.deepEqual([decoding.readVarUint(first), decoding.readVarUint(first), decoding.readVarString(first)], [2, 2, 'read-write'])
  assert.equal(seen.closed, null)
})

test('who answers no ping is closed', async (t) => {
  const seen = await rawSocket(t, freshName(), ['access_token', await node.mint()], { autoPong: false })
  await until('it is closed', () => seen.closed, { show: () => seen })
  assert.deepEqual(seen.closed, { code: 1000, reason: 'Idle timeout' })
})

test('a Hocuspocus socket whose last document was left is not taken for one that never authenticated', async (t) => {
  const [name, token] = [freshName(), await node.mint()]
  const seen = await rawSocket(t, '')
  seen.socket.send(hocuspocus(name, 2, 0, token))
  await until('it is in', () => seen.frames.length > 0)
  seen.socket.send(hocuspocus(name, 7, 'bye'))
  await until('it is closed', () => seen.closed, { show: () => seen })
  assert.deepEqual(seen.closed, { code: 1000, reason: 'No document is open' })
})

test('a socket that says nothing at all is closed with 4001', async (t) => {
  const seen = await rawSocket(t, '')
  await until('it is closed', () => seen.closed, { show: () => seen })
  assert.deepEqual(seen.closed, { code: 4001, reason: 'Missing token' })
})
