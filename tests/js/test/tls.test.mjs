// wss:// with the providers that people use, on both shards, and what a client may try inside TLS.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import tls from 'node:tls'
import { promisify } from 'node:util'
import { KINDS, allSynced, open, sameText, trusted } from '../harness/clients.mjs'
import { freshName, startNode } from '../harness/server.mjs'

let directory
let node
let token
let ca

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'wiresocket-tls-'))
  const [certificate, key] = ['certificate.pem', 'key.pem'].map((name) => join(directory, name))
  await promisify(execFile)('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes',
    '-subj', '/CN=test', '-addext', 'subjectAltName=IP:127.0.0.1', '-days', '30', '-out', certificate, '-keyout', key])
  ca = await readFile(certificate)
  trusted.push(ca)
  node = await startNode({ tls: { certificate, private_key: key } })
  token = await node.mint()
})
after(async () => {
  await node?.stop()
  await rm(directory, { recursive: true })
})

test('all providers meet over wss', async (t) => {
  // Several documents, so that each shard owns some and takes over connections that the other one accepted.
  for (let round = 0; round < 4; round++) {
    const name = freshName()
    const clients = KINDS.map((kind) => open(t, kind, { url: node.ws, name, token }))
    await allSynced(clients)
    clients[0].text.insert(0, 'encrypted')
    await sameText(clients, 9)
  }
})

test('a client that does not trust the certificate turns away', async () => {
  const { hostname: host, port } = new URL(node.ws)
  const socket = tls.connect({ host, port, ca: [] })
  const [error] = await once(socket, 'error')
  assert.match(error.code, /SELF_SIGNED|UNABLE_TO/)
})

test('a renegotiation is refused', async () => {
  const { hostname: host, port } = new URL(node.ws)
  const socket = tls.connect({ host, port, ca, maxVersion: 'TLSv1.2' })
  await once(socket, 'secureConnect')
  assert.equal(socket.getProtocol(), 'TLSv1.2')
  const refused = new Promise((resolve) => socket.on('error', resolve))
  socket.renegotiate({}, () => {})
  const error = await refused
  assert.match(error.message, /renegotiation/i)
  socket.destroy()
})
