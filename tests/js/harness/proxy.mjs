// A TCP proxy in front of a server, to cut connections, to count them and to lead new ones elsewhere.
import { createServer, connect } from 'node:net'
import { defer } from './until.mjs'

export class Proxy {
  /** Connections that clients opened so far, refused ones included. */
  connections = 0
  /** Where the next connection is led: `{ ws }`. */
  server
  #listener
  #pairs = new Set()
  #refusing = false

  /** @param {{ ws: string }} server */
  static async start (t, server) {
    const proxy = new Proxy()
    proxy.server = server
    proxy.#listener = createServer({ noDelay: true }, (client) => proxy.#accepted(client))
    await new Promise((resolve) => proxy.#listener.listen(0, '127.0.0.1', resolve))
    proxy.ws = `ws://127.0.0.1:${proxy.#listener.address().port}`
    defer(t, () => {
      proxy.drop()
      proxy.#listener.close()
    })
    return proxy
  }

  #accepted (client) {
    this.connections += 1
    if (this.#refusing) {
      client.resetAndDestroy()
      return
    }
    const { hostname: host, port } = new URL(this.server.ws)
    const server = connect({ host, port: Number(port), noDelay: true })
    const pair = [client, server]
    this.#pairs.add(pair)
    for (const [from, to] of [[client, server], [server, client]]) {
      from.pipe(to)
      // Either end may vanish: that is what this is for.
      from.on('error', () => to.destroy())
      from.on('close', () => {
        to.destroy()
        this.#pairs.delete(pair)
      })
    }
  }

  get open () {
    return this.#pairs.size
  }

  /** Kills every connection; new ones are let through at once. */
  drop () {
    for (const pair of this.#pairs) for (const socket of pair) socket.resetAndDestroy()
  }

  /** Kills every connection and refuses new ones until `resume`. */
  pause () {
    this.#refusing = true
    this.drop()
  }

  resume () {
    this.#refusing = false
  }
}
