import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Identity, NAME_LENGTH_MAX, PALETTE, cleanName, describePeer, initials, inkOn } from '../web/identity.js'

class Storage {
  #items = new Map()
  getItem (key) { return this.#items.get(key) ?? null }
  setItem (key, value) { this.#items.set(key, value) }
}

test('a chosen name outlives its window, a made-up one doesn’t', () => {
  const local = new Storage()
  const first = new Identity({ local, session: new Storage(), random: () => 0 })
  const second = new Identity({ local, session: new Storage(), random: () => 0.99 })
  assert.notEqual(first.name, second.name)
  assert.equal(first.rename('  Ada '), true)
  assert.equal(new Identity({ local, session: new Storage() }).name, 'Ada')
})

test('a reload keeps the made-up name', () => {
  const session = new Storage()
  const before = new Identity({ local: new Storage(), session, random: () => 0 })
  const after = new Identity({ local: new Storage(), session, random: () => 0.99 })
  assert.equal(after.name, before.name)
})

test('an empty name is not taken', () => {
  const identity = new Identity({ local: new Storage(), session: new Storage() })
  const before = identity.name
  assert.equal(identity.rename(' \u200b\n'), false)
  assert.equal(identity.name, before)
})

test('storage that is forbidden is no failure', () => {
  const forbidden = { getItem () { throw new Error('denied') }, setItem () { throw new Error('denied') } }
  const identity = new Identity({ local: forbidden, session: null })
  assert.equal(identity.rename('Ada'), true)
})

test('of two with one colour, exactly the one with the higher id moves', () => {
  const pair = [1, 2].map((id) => [id, new Identity({ local: null, session: null, random: () => 0 })])
  const states = new Map(pair.map(([id, identity]) => [id, { user: identity.user }]))
  assert.deepEqual(pair.map(([id, identity]) => identity.settleColor(states, id)), [false, true])
  assert.notEqual(pair[0][1].color, pair[1][1].color)
})

test('what strangers send is made safe to show', () => {
  const hostile = describePeer(7, { user: { name: 'x\n<b>'.repeat(50), color: 'red;position:fixed' } })
  assert.ok(PALETTE.includes(hostile.color))
  assert.ok([...hostile.name].length <= NAME_LENGTH_MAX)
  assert.ok(!hostile.name.includes('\n'))
  for (const odd of [null, {}, { user: null }, { user: { name: 3, color: {} } }]) {
    assert.equal(describePeer(7, odd).name, 'Anonymous')
  }
  assert.equal(describePeer(7, { user: { name: 'Ada', color: '#30BCED' } }).color, '#30BCED')
})

test('names are cut between characters, not within them', () => {
  const cut = cleanName('🚀'.repeat(40))
  assert.equal([...cut].length, NAME_LENGTH_MAX)
  assert.doesNotMatch(cut, /\p{Surrogate}/u)
  assert.equal(initials('Grace Brewster Hopper'), 'GH')
  assert.equal(initials('ada'), 'A')
})

test('initials can be read on every colour', () => {
  for (const color of PALETTE) assert.equal(inkOn(color), '#ffffff')
  assert.equal(inkOn('#ffee88'), '#111111')
})
