-- Automation: API keys, invitations to tenants, and the answers that idempotency keys bring again.

CREATE TABLE api_keys (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT REFERENCES tenants (id), -- NULL: an operator's
    role TEXT NOT NULL CHECK (role IN ('operator', 'owner', 'admin', 'developer', 'billing')),
    name TEXT NOT NULL,
    prefix TEXT NOT NULL, -- the secret's beginning, to recognise it
    secret_hash TEXT NOT NULL UNIQUE,
    account_id TEXT REFERENCES accounts (id), -- whose rights it can't exceed; NULL: made on the command line
    parent_id TEXT REFERENCES api_keys (id), -- the key that made it, and takes it along when it is revoked
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT, -- to the hour
    revoked_at BIGINT,
    CHECK ((role = 'operator') = (tenant_id IS NULL))
);
CREATE INDEX api_keys_by_tenant ON api_keys (tenant_id, id);
CREATE INDEX api_keys_by_parent ON api_keys (parent_id);

CREATE TABLE invitations (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    email TEXT NOT NULL, -- lower-cased
    role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'developer', 'billing')),
    token_hash TEXT NOT NULL UNIQUE,
    invited_by TEXT NOT NULL, -- the actor, as the audit log writes it
    -- sending: the mail is not out yet, and its link not good
    state TEXT NOT NULL CHECK (state IN ('sending', 'open', 'accepted', 'withdrawn', 'expired')),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    accepted_by TEXT REFERENCES accounts (id)
);
CREATE UNIQUE INDEX invitations_one_open ON invitations (tenant_id, email) WHERE state IN ('sending', 'open');

CREATE TABLE idempotency_keys (
    actor TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    request_hash TEXT NOT NULL, -- of method, path and body
    created_at BIGINT NOT NULL,
    status BIGINT, -- NULL: the request is being carried out, or was when the process ended
    headers TEXT, -- JSON
    sealed_body TEXT, -- it may hold a secret
    PRIMARY KEY (actor, idempotency_key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
