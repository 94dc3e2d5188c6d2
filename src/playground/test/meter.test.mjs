import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as encoding from 'lib0/encoding'
import * as sync from 'y-protocols/sync'
import * as Y from 'yjs'
import { Meter, countingWebSocket, stepOne } from '../web/meter.js'

const STEP_2 = Uint8Array.from([0, 1, 2, 0, 0]).buffer
const AWARENESS = Uint8Array.from([1, 1, 0]).buffer

function meterAt (clock) {
  return new Meter(() => clock.now)
}

test('a probe is timed by the step 2 that follows it, whatever else arrives in between', () => {
  const clock = { now: 100 }
  const meter = meterAt(clock)
  meter.probing()
  assert.equal(meter.idle, false)
  clock.now = 104
  meter.received(AWARENESS)
  assert.equal(meter.roundTripMs, null)
  clock.now = 107.5
  meter.received(STEP_2)
  assert.equal(meter.roundTripMs, 7.5)
  assert.equal(meter.idle, true)
})

test('a step 2 that nobody probed for is no measurement', () => {
  const meter = meterAt({ now: 1 })
  meter.received(STEP_2)
  assert.equal(meter.roundTripMs, null)
})

test('a lost connection takes its probe and its figure along', () => {
  const clock = { now: 0 }
  const meter = meterAt(clock)
  meter.probing()
  meter.lost()
  clock.now = 50
  meter.received(STEP_2)
  assert.equal(meter.roundTripMs, null)
  assert.equal(meter.idle, true)
})

test('the socket reports what it sends and receives, and sends it', () => {
  class FakeSocket extends EventTarget {
    sent = []
    constructor (url, protocols) {
      super()
      Object.assign(this, { url, protocols })
    }

    send (data) { this.sent.push(data) }
  }
  const meter = new Meter()
  const socket = new (countingWebSocket(meter, FakeSocket))('ws://host/doc', ['access_token', 't'])
  socket.send(Uint8Array.from([1, 2, 3]))
  socket.send('é')
  socket.dispatchEvent(new MessageEvent('message', { data: AWARENESS }))
  assert.deepEqual([meter.bytesOut, meter.messagesOut, meter.bytesIn, meter.messagesIn], [5, 2, 3, 1])
  assert.equal(socket.sent.length, 2)
  assert.deepEqual(socket.protocols, ['access_token', 't'])
})

test('a step 1 is framed as y-protocols frames it, for a long state vector too', () => {
  for (const authors of [0, 1, 100]) {
    const doc = new Y.Doc()
    for (let author = 0; author < authors; author++) {
      const other = new Y.Doc()
      other.getText('content').insert(0, 'x')
      Y.applyUpdate(doc, Y.encodeStateAsUpdate(other))
    }
    const encoder = encoding.createEncoder()
    encoding.writeVarUint(encoder, 0)
    sync.writeSyncStep1(encoder, doc)
    assert.deepEqual(stepOne(Y.encodeStateVector(doc)), encoding.toUint8Array(encoder))
  }
})
