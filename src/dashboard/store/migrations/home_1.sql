-- The home database: what is global. Times are unix seconds, ids GUIDs as text, money integer cents. The SQL is what
-- SQLite and PostgreSQL have in common.

CREATE TABLE accounts (
    id TEXT NOT NULL PRIMARY KEY,
    email TEXT NOT NULL UNIQUE, -- lower-cased
    name TEXT NOT NULL,
    password_hash TEXT NOT NULL, -- PHC string, argon2id
    must_change_password BIGINT NOT NULL, -- 1 after a one-time password
    is_operator BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    disabled_at BIGINT
);

CREATE TABLE tenants (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'suspended')),
    created_at BIGINT NOT NULL,
    approved_at BIGINT,
    suspended_at BIGINT,
    version BIGINT NOT NULL
);

CREATE TABLE members (
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    account_id TEXT NOT NULL REFERENCES accounts (id),
    role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'developer', 'billing')),
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, account_id)
);
CREATE INDEX members_by_account ON members (account_id);

CREATE TABLE signing_keys (
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    kid TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('next', 'active', 'retired', 'revoked', 'gone')),
    public_jwk TEXT NOT NULL,
    sealed_private TEXT, -- only while the key may still sign
    master_version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    signs_at BIGINT NOT NULL, -- not before this; it has been published for a cache life by then
    activated_at BIGINT,
    retired_at BIGINT,
    gone_at BIGINT, -- for a retired key: when the last token signed with it has expired everywhere
    revoked_at BIGINT,
    PRIMARY KEY (tenant_id, kid)
);
CREATE UNIQUE INDEX signing_keys_one_active ON signing_keys (tenant_id) WHERE state = 'active';
CREATE UNIQUE INDEX signing_keys_one_next ON signing_keys (tenant_id) WHERE state = 'next';

CREATE TABLE plans (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    max_connections BIGINT NOT NULL CHECK (max_connections > 0),
    max_documents BIGINT NOT NULL CHECK (max_documents > 0),
    max_users_per_doc BIGINT NOT NULL CHECK (max_users_per_doc > 0),
    ops_per_minute BIGINT NOT NULL CHECK (ops_per_minute > 0),
    price_cents BIGINT NOT NULL CHECK (price_cents >= 0), -- for one period
    currency TEXT NOT NULL,
    period_days BIGINT NOT NULL CHECK (period_days > 0),
    is_offered BIGINT NOT NULL -- 0: existing subscriptions keep it, nobody new gets it
);

INSERT INTO plans (id, name, max_connections, max_documents, max_users_per_doc, ops_per_minute, price_cents, currency, period_days, is_offered) VALUES
    ('free', 'Free', 100, 50, 10, 6000, 0, 'USD', 30, 1),
    ('starter', 'Starter', 1000, 1000, 50, 60000, 2900, 'USD', 30, 1),
    ('pro', 'Pro', 10000, 10000, 100, 600000, 19900, 'USD', 30, 1),
    ('business', 'Business', 100000, 100000, 500, 6000000, 99900, 'USD', 30, 1);

CREATE TABLE subscriptions (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    app_id TEXT NOT NULL, -- the app itself lives in its region's database
    region TEXT NOT NULL,
    plan_id TEXT NOT NULL REFERENCES plans (id),
    is_free BIGINT NOT NULL, -- of the plan, when it was subscribed to
    state TEXT NOT NULL CHECK (state IN ('active', 'past_due', 'cancelled')),
    period_start BIGINT NOT NULL,
    period_end BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    ended_at BIGINT, -- when it stopped counting; the row stays for the books
    version BIGINT NOT NULL
);
CREATE UNIQUE INDEX subscriptions_one_per_app ON subscriptions (app_id) WHERE ended_at IS NULL;
CREATE UNIQUE INDEX subscriptions_one_free_per_tenant ON subscriptions (tenant_id) WHERE is_free = 1 AND ended_at IS NULL;
CREATE INDEX subscriptions_by_tenant ON subscriptions (tenant_id);

CREATE TABLE audit_log (
    seq BIGINT NOT NULL PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE, -- an event of a region arrives at least once and counts once
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    address TEXT NOT NULL, -- empty: none, as for the command line
    tenant_id TEXT NOT NULL, -- empty: about no tenant
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    detail TEXT NOT NULL, -- JSON
    previous_hash TEXT NOT NULL,
    hash TEXT NOT NULL
);
CREATE INDEX audit_log_by_tenant ON audit_log (tenant_id, seq);

-- The end of the chain. Updating this one row is what makes concurrent appends wait for each other.
CREATE TABLE audit_head (
    id BIGINT NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL
);
INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, '');
