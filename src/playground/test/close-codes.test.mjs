import assert from 'node:assert/strict'
import { test } from 'node:test'
import { explainClose } from '../web/close-codes.js'

test('a refusal that a retry can’t mend is never retried by itself', () => {
  for (const code of [4003, 4007, 4009, 4403, 4407, 4499, 1009]) {
    assert.equal(explainClose(code).then, 'stop', String(code))
  }
  for (const code of [4001, 4002, 4401]) assert.equal(explainClose(code).then, 'renew', String(code))
})

test('a limit is waited for, for seconds', () => {
  for (const code of [4004, 4005, 4006, 4008, 1013]) {
    const { then, waitS } = explainClose(code, '', () => 0)
    assert.equal(then, 'wait', String(code))
    assert.ok(waitS >= 5, `${code}: ${waitS}`)
  }
})

test('the server’s own retry hint is kept, within a bound', () => {
  assert.equal(explainClose(1012, 'Draining: retry after 7 s', () => 0).waitS, 7)
  assert.equal(explainClose(1013, 'Overloaded: retry after 99999 s', () => 0).waitS, 120)
  assert.ok(explainClose(1012, 'Draining', () => 0.999).waitS < 4)
})

test('a redirect names where the document is', () => {
  assert.equal(explainClose(4009, 'REDIRECT:wss://eu.example/notes').redirect, 'wss://eu.example/notes')
  assert.equal(explainClose(4009, '').redirect, null)
})

test('a loss of the network, or a code nobody knows, is left to the provider', () => {
  for (const code of [1000, 1001, 1005, 1006, 4100]) assert.equal(explainClose(code).then, 'retry', String(code))
})

test('every code of the contract has words of its own', () => {
  const codes = [4001, 4002, 4003, 4004, 4005, 4006, 4007, 4008, 4009, 1012, 1013]
  const titles = new Set(codes.map((code) => explainClose(code).title))
  assert.equal(titles.size, codes.length)
  assert.ok(!titles.has(explainClose(4100).title))
})
