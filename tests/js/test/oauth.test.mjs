// Standard OAuth 2 and JOSE libraries, unmodified, against the token endpoint of the dashboard.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'
import { createApp, startDashboard } from '../harness/dashboard.mjs'

const SCOPE = 'WireSocket.API offline_access'
const INSECURE = { [oauth.allowInsecureRequests]: true } // loopback without TLS

let dashboard
let app

before(async () => {
  dashboard = await startDashboard()
  app = await createApp(dashboard)
})
after(() => dashboard?.stop())

/** Verifies as any resource server would: from the tenant's key set. */
async function verified (token) {
  const keys = createRemoteJWKSet(new URL(`${dashboard.issuer}/${app.tenantId}/.well-known/jwks`))
  const options = { issuer: dashboard.issuer, audience: 'WireSocket.API', algorithms: ['RS256'], requiredClaims: ['exp', 'jti'] }
  const { payload } = await jwtVerify(token, keys, options)
  return payload
}

for (const [name, method] of [['client_secret_post', openid.ClientSecretPost], ['client_secret_basic', openid.ClientSecretBasic]]) {
  test(`openid-client discovers, gets and renews tokens with ${name}; jose verifies them`, async () => {
    const options = { algorithm: 'oauth2', execute: [openid.allowInsecureRequests] }
    const config = await openid.discovery(new URL(dashboard.issuer), app.clientId, undefined, method(app.clientSecret), options)
    const first = await openid.clientCredentialsGrant(config, { scope: SCOPE })
    assert.equal(first.expires_in, 900)
    const claims = await verified(first.access_token)
    assert.equal(claims.sub, app.clientId)
    assert.equal(claims.tenantid, app.tenantId)
    assert.equal(claims.allowed_domain_1, 'myapp.com')
    assert.deepEqual(claims.limits, { maxConnections: 1000, maxDocuments: 1000, maxUsersPerDoc: 50, opsPerMinute: 60000 })

    const second = await openid.refreshTokenGrant(config, first.refresh_token)
    await verified(second.access_token)
    await openid.tokenRevocation(config, second.refresh_token)
    await assert.rejects(openid.refreshTokenGrant(config, second.refresh_token), { error: 'invalid_grant', status: 400 })
  })
}

test('a page without the secret renews with its client_id alone', async () => {
  const options = { algorithm: 'oauth2', execute: [openid.allowInsecureRequests] }
  const backend = await openid.discovery(new URL(dashboard.issuer), app.clientId, app.clientSecret, undefined, options)
  const { refresh_token: handedOver } = await openid.clientCredentialsGrant(backend, { scope: SCOPE })
  const page = await openid.discovery(new URL(dashboard.issuer), app.clientId, undefined, openid.None(), options)
  const renewed = await openid.refreshTokenGrant(page, handedOver)
  await verified(renewed.access_token)
  assert.notEqual(renewed.refresh_token, handedOver)
})

test('oauth4webapi gets and renews tokens, and understands a refusal', async () => {
  const issuer = new URL(dashboard.issuer)
  const found = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...INSECURE })
  const server = await oauth.processDiscoveryResponse(issuer, found)
  const client = { client_id: app.clientId }
  const authentication = oauth.ClientSecretBasic(app.clientSecret)
  const parameters = new URLSearchParams({ scope: SCOPE })
  const answer = await oauth.clientCredentialsGrantRequest(server, client, authentication, parameters, INSECURE)
  const tokens = await oauth.processClientCredentialsResponse(server, client, answer)
  await verified(tokens.access_token)

  const refresh = () => oauth.refreshTokenGrantRequest(server, client, oauth.None(), tokens.refresh_token, INSECURE)
  const renewed = await oauth.processRefreshTokenResponse(server, client, await refresh())
  await verified(renewed.access_token)
  await assert.rejects(async () => oauth.processRefreshTokenResponse(server, client, await refresh()), { error: 'invalid_grant' })

  const wrong = await oauth.clientCredentialsGrantRequest(server, client, oauth.ClientSecretPost('wrong'), parameters, INSECURE)
  await assert.rejects(oauth.processClientCredentialsResponse(server, client, wrong), oauth.WWWAuthenticateChallengeError)
})
