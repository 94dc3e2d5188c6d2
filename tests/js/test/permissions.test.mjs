// Tokens that allow less than everything, with the providers that people use.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { HOCUSPOCUS_KINDS, KINDS, allSeeEachOther, allSynced, open, sameText } from '../harness/clients.mjs'
import { freshName, startNode } from '../harness/server.mjs'
import { until } from '../harness/until.mjs'

let node
let full
let readOnly

before(async () => {
  node = await startNode()
  full = await node.mint()
  readOnly = await node.mint({ scope: 'WireSocket.API WireSocket.ReadOnly' })
})
after(() => node?.stop())

for (const kind of KINDS) {
  test(`${kind}: with a read-only token it reads, is seen, and writes nothing`, async (t) => {
    const name = freshName()
    const writer = open(t, KINDS[0], { url: node.ws, name, token: full })
    const reader = open(t, kind, { url: node.ws, name, token: readOnly })
    writer.awareness.setLocalState({ who: 'writer' })
    reader.awareness.setLocalState({ who: 'reader' })
    await allSynced([writer, reader])
    writer.text.insert(0, 'seen')
    await sameText([writer, reader], 4)
    await allSeeEachOther([writer, reader])

    const warnings = t.mock.method(console, 'warn', () => {})
    reader.text.insert(0, 'never ')
    if (HOCUSPOCUS_KINDS.includes(kind)) {
      assert.equal(reader.provider.authorizedScope, 'readonly')
      await until('the provider knows of an unsaved change', () => !reader.saved, { show: () => reader })
    } else {
      await until('the console says it', () => warnings.mock.callCount() > 0)
      assert.match(warnings.mock.calls[0].arguments.join(' '), /read-only/)
    }
    // What the writer writes later reaches the reader, so the server has dealt with the reader's before.
    writer.text.insert(4, ' later')
    await until('the reader has the rest', () => reader.text.toString() === 'never seen later', { show: () => reader })
    const newcomer = open(t, KINDS[5], { url: node.ws, name, token: full })
    await sameText([writer, newcomer], 10)
    assert.deepEqual([...reader.closes, ...reader.denials], [])
  })
}

test('a token for some documents opens these', async (t) => {
  const prefix = freshName()
  const token = await node.mint({ documents: [`${prefix}-*`] })
  const inside = KINDS.map((kind) => open(t, kind, { url: node.ws, name: `${prefix}-1`, token }))
  await allSynced(inside)
  const outside = KINDS.map((kind) => open(t, kind, { url: node.ws, name: `${prefix}`, token }))
  await until('all are told 4003', () => outside.every(({ closes, denials }) =>
    denials.some((reason) => reason.startsWith('4003')) || closes.length > 0), { show: () => outside })
  for (const client of outside) {
    assert.ok(!client.synced)
    client.stayAway()
  }
  const discovered = await fetch(`${node.http}/discovery?documentName=${prefix}`, { headers: { authorization: `Bearer ${token}` } })
  assert.equal(discovered.status, 403)
})
