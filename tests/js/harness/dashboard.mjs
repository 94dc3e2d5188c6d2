// `wiresocket dashboard` on a database of its own, and `wiresocket admin` beside it.
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Server, run, toml } from './server.mjs'

/**
 * A dashboard whose issuer is its own address, as clients that discover it must find it.
 *
 * @param {object} sections further sections of its configuration, as `{ section: { key: value } }`
 */
export async function startDashboard (sections = {}) {
  const directory = await mkdtemp(join(tmpdir(), 'wiresocket-test-'))
  const masterKey = join(directory, 'master-key-1')
  await run(['admin', 'generate-master-key', masterKey])
  // The issuer is in the configuration and holds the port, so the port is chosen before the server starts.
  const port = await freePort()
  const issuer = `http://127.0.0.1:${port}`
  const config = join(directory, 'dashboard.toml')
  await writeFile(config, toml({
    dashboard: { listen: `127.0.0.1:${port}`, issuer, operator_email: 'ops@example.com' },
    mail: { from: 'WireSocket <no-reply@example.com>', directory: join(directory, 'mail') },
    database: { home: `sqlite:${join(directory, 'home.db')}` },
    'master_keys.1': { file: masterKey },
    ...sections,
    log: { format: 'json' }
  }))
  const server = new Server(['dashboard', '--config', config])
  const [operatorPassword] = await Promise.all([
    server.first(server.stdout, (line) => /one-time password (\S+)/.exec(line)?.[1]),
    server.first(server.stderr, (line) => line.startsWith('{') && line.includes('listening'))
  ])
  /** The text of the only letter to somebody. Long lines are quoted-printable; only the soft breaks matter. */
  const letterTo = async (email) => {
    const files = await readdir(join(directory, 'mail'))
    const letters = await Promise.all(files.map((file) => readFile(join(directory, 'mail', file), 'utf8')))
    const found = letters.filter((letter) => letter.includes(`To: ${email}`))
    if (found.length !== 1) throw new Error(`there are ${found.length} letters to ${email}`)
    return found[0].replaceAll('=\r\n', '').replaceAll('=3D', '=')
  }
  const admin = async (...args) => JSON.parse(await run(['admin', '--config', config, ...args]))
  /** The `[dashboard]` section of a node that joins with this secret; one of several nodes needs a name of its own. */
  const enrolment = async (secret, name = 'node') => {
    const file = join(directory, `${name}-enrolment-secret`)
    await writeFile(file, secret, { mode: 0o600 })
    return { url: issuer, enrolment_secret_file: file, credential_file: join(directory, `${name}-credential`) }
  }
  const stop = async () => {
    await server.stop()
    await rm(directory, { recursive: true })
  }
  return { issuer, operatorPassword, admin, enrolment, letterTo, stop }
}

/** An approved tenant with an app on a plan: `{ tenantId, appId, clientId, clientSecret }`. */
export async function createApp (dashboard, plan = 'starter') {
  const { tenant } = await dashboard.admin('create-tenant', 'Acme', '--owner', 'owner@example.com', '--approve')
  return dashboard.admin('create-app', tenant, 'Notes', '--plan', plan, '--allow-domain', 'https://MyApp.com/')
}

async function freePort () {
  const server = createServer()
  await new Promise((resolve, reject) => server.listen(0, '127.0.0.1', resolve).once('error', reject))
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return port
}
