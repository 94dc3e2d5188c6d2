import assert from 'node:assert/strict'
import { test } from 'node:test'
import { abbreviateToken, formatBytes, formatMs, peopleHere } from '../web/format.js'
import { snippets } from '../web/snippets.js'

const target = { url: 'ws://127.0.0.1:9000', name: 'welcome', token: 'aaa.bbb.ccc' }

test('both snippets carry the address, the document and the whole token', () => {
  for (const code of Object.values(snippets(target))) {
    for (const value of Object.values(target)) assert.ok(code.includes(`'${value}'`), code)
  }
})

test('a document name from the address bar can’t break out of its quotes', () => {
  for (const code of Object.values(snippets({ ...target, name: "x'); alert('1\\\n" }))) {
    assert.ok(code.includes("'x\\'); alert(\\'1\\\\ '"), code)
  }
})

test('a token on the screen can’t be used', () => {
  const token = `${'h'.repeat(40)}.${'p'.repeat(300)}.${'s'.repeat(342)}`
  assert.ok(abbreviateToken(token).length < 20)
})

test('figures keep to three digits', () => {
  assert.deepEqual([0, 999, 1000, 9_949, 12_345, 999_499, 999_500, 5e9].map(formatBytes),
    ['0 B', '999 B', '1.0 kB', '9.9 kB', '12 kB', '999 kB', '1.0 MB', '5.0 GB'])
  assert.deepEqual([null, 0.04, 0.4, 9.94, 12.3].map(formatMs), ['–', '<0.1 ms', '0.4 ms', '9.9 ms', '12 ms'])
  assert.deepEqual([1, 2].map(peopleHere), ['Only you here', '2 people here'])
})
