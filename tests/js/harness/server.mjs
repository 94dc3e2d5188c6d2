// The server under test: the real binary, on a free port of the loopback interface, stopped by SIGTERM.
//
// Nothing is built here. WIRESOCKET_BIN names the binary; without it, it is cargo's debug build.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { until } from './until.mjs'

const ROOT = fileURLToPath(new URL('../../..', import.meta.url))
const STDERR_LINES_KEPT = 40
const TENANT = '0e6b0d4e-4c0e-4b0e-9d0a-6a1c2f3b4c5d'

export function binary () {
  const named = process.env.WIRESOCKET_BIN
  const path = named ? resolve(named) : resolve(ROOT, process.env.CARGO_TARGET_DIR ?? 'target', 'debug/wiresocket')
  if (existsSync(path)) return path
  throw new Error(`there is no ${path}: run cargo build, or say where the binary is with WIRESOCKET_BIN`)
}

export class Server {
  #child
  #stderr = []
  #exit

  /** @param {string[]} args */
  constructor (args) {
    this.#child = spawn(binary(), args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, WIRESOCKET_LOG: '' } })
    this.#exit = new Promise((resolve, reject) => {
      this.#child.once('exit', (code, signal) => resolve(signal ?? code))
      this.#child.once('error', reject)
    })
    this.stdout = createInterface({ input: this.#child.stdout })
    this.stderr = createInterface({ input: this.#child.stderr })
    this.stderr.on('line', (line) => {
      this.#stderr.push(line)
      if (this.#stderr.length > STDERR_LINES_KEPT) this.#stderr.shift()
      if (process.env.WIRESOCKET_TEST_LOG) console.error(line)
    })
  }

  get log () {
    return this.#stderr.join('\n')
  }

  get pid () {
    return this.#child.pid
  }

  /** The first line of `source` for which `pick` returns something; rejects if the process ends before. */
  first (source, pick) {
    const found = new Promise((resolve) => source.on('line', (line) => {
      const picked = pick(line)
      if (picked) resolve(picked)
    }))
    const ended = this.#exit.then((code) => {
      throw new Error(`the server ended with ${code} before it was ready:\n${this.log}`)
    })
    return Promise.race([found, ended])
  }

  /** SIGKILL. */
  async kill () {
    this.#child.kill('SIGKILL')
    assert.equal(await this.#exit, 'SIGKILL')
  }

  /** SIGTERM; the server must say good-bye to everybody and exit with 0. */
  async stop () {
    this.#child.kill('SIGTERM')
    let code
    this.#exit.then((exit) => { code = exit })
    try {
      await until('the server ended after SIGTERM', () => code !== undefined, { show: () => this.log })
    } catch (error) {
      this.#child.kill('SIGKILL')
      throw error
    }
    assert.equal(code, 0, `the server's exit code after SIGTERM; it said:\n${this.log}`)
    assert.doesNotMatch(this.log, /panicked/, 'nothing in the server panicked')
  }
}

/**
 * `wiresocket dev`: a demo tenant and the playground.
 *
 * @returns {Promise<Server & { ws: string, http: string, token: string, tenantId: string, appId: string }>}
 */
export async function startDev ({ shards = 2 } = {}) {
  const server = new Server(['dev', '--listen', '127.0.0.1:0', '--json', '--shards', String(shards)])
  return Object.assign(server, await server.first(server.stdout, JSON.parse))
}

/**
 * `wiresocket node`, with a key directory of its own and the given keys of the configuration, as
 * `{ section: { key: value } }`.
 */
export async function startNode (keys = {}) {
  const directory = await mkdtemp(join(tmpdir(), 'wiresocket-test-'))
  const node = new Node(directory, keys)
  await run(['token', '--generate-key', node.keyDir, '--tenant', TENANT])
  await node.start()
  return node
}

class Node {
  #directory
  #keys
  #server
  #listen = '127.0.0.1:0'

  constructor (directory, keys) {
    this.#directory = directory
    this.#keys = keys
    this.keyDir = join(directory, 'keys')
  }

  async start () {
    const { node, auth, http, drain, journal, ...rest } = this.#keys
    const config = join(this.#directory, 'node.toml')
    await writeFile(config, toml({
      ...rest,
      node: { listen: this.#listen, shards: 2, ...node },
      auth: { issuer: 'https://wiresocket.local', key_dir: this.keyDir, leeway_s: 0, ...auth },
      http: { upgrades_per_minute: 0, discovery_per_minute: 0, ...http },
      drain: { spread_s: 0, ...drain },
      journal: { durability: 'memory', directory: join(this.#directory, 'journal'), ...journal },
      log: { format: 'json' }
    }))
    this.#server = new Server(['node', '--config', config])
    this.#listen = await this.#server.first(this.#server.stderr, (line) => {
      if (!line.startsWith('{')) return undefined // the configuration is refused
      const event = JSON.parse(line)
      const fields = event.fields ?? event
      return fields.message === 'listening' && fields.address
    })
  }

  get ws () {
    return `${this.#keys.tls ? 'wss' : 'ws'}://${this.#listen}`
  }

  get http () {
    return `http://${this.#listen}`
  }

  /** A token of this node's tenant, with these claims over the usual ones. */
  mint (claims = {}) {
    return run(['token', '--key', join(this.keyDir, `${TENANT}.pem`), '--claims', JSON.stringify(claims)])
  }

  /** Ends it and starts it again on the same port, with the same keys; its memory is empty unless it has a journal. */
  async restart () {
    await this.#server.stop()
    await this.start()
  }

  /** Kills it at once: it hears nothing of it. */
  async kill () {
    await this.#server.kill()
  }

  async stop () {
    await this.#server.stop()
    await rm(this.#directory, { recursive: true })
  }
}

/** JSON's strings, numbers, booleans and lists of these are TOML's too. */
export function toml (sections) {
  return Object.entries(sections).map(([name, keys]) =>
    `[${name}]\n${Object.entries(keys).map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`).join('')}`).join('\n')
}

/** Runs the binary to its end and returns what it printed. */
export async function run (args) {
  const child = spawn(binary(), args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let [stdout, stderr] = ['', '']
  child.stdout.on('data', (chunk) => { stdout += chunk })
  child.stderr.on('data', (chunk) => { stderr += chunk })
  const code = await new Promise((resolve, reject) => child.once('close', resolve).once('error', reject))
  assert.equal(code, 0, `wiresocket ${args[0]}: ${stderr}`)
  return stdout.trim()
}

let documents = 0

/** A document name that no other test uses. */
export function freshName () {
  documents += 1
  return `doc-${process.pid}-${documents}`
}

/** `exp` of a token that ends in so many whole seconds, and how it is rounded: at least that long from now. */
export function expiresIn (seconds) {
  return Math.ceil(Date.now() / 1000) + seconds
}
