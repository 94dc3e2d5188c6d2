import assert from 'node:assert/strict'
import { test } from 'node:test'
import { renewInMs, socketUrl } from '../web/credentials.js'

const token = (claims) => `e30.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.c2ln`

test('the configured address is used where the page came from it', () => {
  const location = { host: '127.0.0.1:9000', protocol: 'http:' }
  assert.equal(socketUrl('ws://127.0.0.1:9000', location), 'ws://127.0.0.1:9000')
  assert.equal(socketUrl('ws://127.0.0.1:9000/', location), 'ws://127.0.0.1:9000')
})

test('elsewhere the page’s own host is used, encrypted where the page is', () => {
  assert.equal(socketUrl('ws://127.0.0.1:9000', { host: '192.168.1.7:9000', protocol: 'http:' }), 'ws://192.168.1.7:9000')
  assert.equal(socketUrl('ws://127.0.0.1:9000', { host: 'dev.example', protocol: 'https:' }), 'wss://dev.example')
})

test('a token is renewed a minute before its end, a short one at nine tenths', () => {
  assert.equal(renewInMs(token({ exp: 86_400 }), 0), 86_340_000)
  assert.equal(renewInMs(token({ exp: 100 }), 0), 90_000)
})

test('a token about to end isn’t asked for again and again', () => {
  assert.equal(renewInMs(token({ exp: 1 }), 0), 5_000)
  assert.equal(renewInMs(token({ exp: 1 }), 2_000), null)
})

test('a token that can’t be read is left alone', () => {
  for (const odd of ['', 'a.b.c', 'opaque', token({}), token({ exp: 'soon' })]) assert.equal(renewInMs(odd, 0), null)
})
