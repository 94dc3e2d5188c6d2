// All six providers in one document: they agree on what is in it and on who is here.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { HOCUSPOCUS_KINDS, KINDS, Y, allSaved, allSeeEachOther, allSynced, open, openAll, sameText } from '../harness/clients.mjs'
import { freshName, startDev } from '../harness/server.mjs'
import { until } from '../harness/until.mjs'

let server

before(async () => { server = await startDev({ shards: 4 }) })
after(() => server?.stop())

function here (name = freshName()) {
  return { url: server.ws, name, token: server.token }
}

test('all providers reach synced in a new document', async (t) => {
  await allSynced(openAll(t, here()))
})

test('concurrent edits of text, map, array and XML converge', async (t) => {
  const clients = openAll(t, here())
  await allSynced(clients)
  for (const { doc, kind, text } of clients) {
    text.insert(0, `${kind}\n`)
    doc.getMap('map').set(kind, { version: kind })
    doc.getMap('map').set('last', kind)
    doc.getArray('array').push([kind, 1])
    const paragraph = new Y.XmlElement('p')
    paragraph.setAttribute('by', kind)
    paragraph.insert(0, [new Y.XmlText(kind)])
    doc.getXmlFragment('xml').push([paragraph])
  }
  await sameText(clients, KINDS.join('\n').length + 1)
  const content = ({ doc }) => JSON.stringify([
    Object.entries(doc.getMap('map').toJSON()).sort(), doc.getArray('array').toJSON(), doc.getXmlFragment('xml').toString()
  ])
  await until('everybody has the same map, array and XML', () => clients.every((client) => content(client) === content(clients[0])),
    { show: () => clients.map(content) })
  const [{ doc }] = clients
  assert.deepEqual([...doc.getMap('map').keys()].sort(), [...KINDS, 'last'].sort())
  assert.deepEqual(doc.getArray('array').toArray().filter((item) => item !== 1).sort(), [...KINDS].sort())
  assert.equal(doc.getXmlFragment('xml').length, KINDS.length)
})

test('formatting, deletions and undone edits converge', async (t) => {
  const clients = openAll(t, here())
  await allSynced(clients)
  clients[0].text.insert(0, 'one two six ten may sun ')
  await sameText(clients, 24)
  clients.forEach(({ text }, at) => text.format(at * 4, 3, { bold: true }))
  clients[3].text.delete(0, 4)
  const undo = new Y.UndoManager(clients[5].text)
  clients[5].text.insert(0, 'never mind')
  undo.undo()
  await sameText(clients, 20)
  const delta = ({ text }) => JSON.stringify(text.toDelta())
  await until('everybody has the same formatting', () => clients.every((client) => delta(client) === delta(clients[0])),
    { show: () => clients.map(delta) })
  assert.deepEqual(clients[0].text.toDelta(), ['two', 'six', 'ten', 'may', 'sun'].flatMap((word) =>
    [{ insert: word, attributes: { bold: true } }, { insert: ' ' }]))
})

test('who comes later gets what is there', async (t) => {
  const where = here()
  const writer = open(t, KINDS[0], where)
  writer.text.insert(0, 'written before the others came')
  await allSynced([writer])
  const late = KINDS.map((kind) => open(t, kind, where))
  await sameText([writer, ...late], 30)
})

test('a document of 200 kB reaches every provider', async (t) => {
  const where = here()
  const writer = open(t, KINDS[5], where)
  writer.text.insert(0, 'x'.repeat(200_000))
  await allSaved([writer])
  await sameText([writer, ...openAll(t, where)], 200_000)
})

for (const kind of HOCUSPOCUS_KINDS) {
  test(`${kind}: each update is acknowledged, and none stays unsynced`, async (t) => {
    const client = open(t, kind, here())
    await allSaved([client])
    const counts = []
    // Version 2 hands over the bare number.
    client.provider.on('unsyncedChanges', (said) => counts.push(said.number ?? said))
    for (let edit = 0; edit < 20; edit++) client.text.insert(0, 'x')
    await allSaved([client])
    assert.deepEqual(counts, [...Array(20).keys()].map((n) => n + 1).concat([...Array(20).keys()].reverse()),
      'up by one for each edit, down by one for each acknowledgement')
  })
}

for (const kind of KINDS) {
  test(`${kind}: its awareness comes, changes, and is gone for everybody once it leaves`, async (t) => {
    const clients = openAll(t, here())
    await allSeeEachOther(clients)
    const leaving = clients.find((client) => client.kind === kind)
    leaving.awareness.setLocalStateField('who', 'renamed')
    await allSeeEachOther(clients)
    leaving.destroy()
    await allSeeEachOther(clients.filter((client) => client !== leaving))
  })
}

test('two names are two documents', async (t) => {
  const [one, two] = [open(t, KINDS[2], here()), open(t, KINDS[5], here())]
  one.text.insert(0, 'one')
  two.text.insert(0, 'two')
  await allSaved([one, two])
  const witnesses = [open(t, KINDS[5], here(one.name)), open(t, KINDS[2], here(two.name))]
  await sameText([one, witnesses[0]], 3)
  await sameText([two, witnesses[1]], 3)
  assert.equal(witnesses[0].text.toString(), 'one')
})
