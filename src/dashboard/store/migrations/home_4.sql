-- Billing: versions of plans, the money side of subscriptions, invoices and payments. Money is integer cents.

-- What a plan gives and costs. A version is never changed: a subscription keeps the one that it was made with.
CREATE TABLE plan_versions (
    plan_id TEXT NOT NULL REFERENCES plans (id),
    version BIGINT NOT NULL,
    name TEXT NOT NULL,
    max_connections BIGINT NOT NULL CHECK (max_connections > 0),
    max_documents BIGINT NOT NULL CHECK (max_documents > 0),
    max_users_per_doc BIGINT NOT NULL CHECK (max_users_per_doc > 0),
    ops_per_minute BIGINT NOT NULL CHECK (ops_per_minute > 0),
    price_cents BIGINT NOT NULL CHECK (price_cents >= 0), -- for one period
    currency TEXT NOT NULL,
    period TEXT NOT NULL CHECK (period IN ('month', 'year')),
    created_at BIGINT NOT NULL,
    PRIMARY KEY (plan_id, version)
);
INSERT INTO plan_versions (plan_id, version, name, max_connections, max_documents, max_users_per_doc, ops_per_minute, price_cents, currency, period, created_at)
    SELECT id, 1, name, max_connections, max_documents, max_users_per_doc, ops_per_minute, price_cents, currency,
        CASE WHEN period_days >= 365 THEN 'year' ELSE 'month' END, 0 FROM plans;

ALTER TABLE plans ADD COLUMN version BIGINT NOT NULL DEFAULT 1; -- the one on offer
ALTER TABLE plans DROP COLUMN name;
ALTER TABLE plans DROP COLUMN max_connections;
ALTER TABLE plans DROP COLUMN max_documents;
ALTER TABLE plans DROP COLUMN max_users_per_doc;
ALTER TABLE plans DROP COLUMN ops_per_minute;
ALTER TABLE plans DROP COLUMN price_cents;
ALTER TABLE plans DROP COLUMN currency;
ALTER TABLE plans DROP COLUMN period_days;

-- The state is read from these: ended, else past due, else cancelled, else active.
ALTER TABLE subscriptions ADD COLUMN plan_version BIGINT NOT NULL DEFAULT 1;
ALTER TABLE subscriptions ADD COLUMN anchor_at BIGINT NOT NULL DEFAULT 0; -- periods are counted from here
ALTER TABLE subscriptions ADD COLUMN periods BIGINT NOT NULL DEFAULT 0; -- whole ones between anchor_at and period_start
ALTER TABLE subscriptions ADD COLUMN cancelled_at BIGINT; -- runs to period_end
ALTER TABLE subscriptions ADD COLUMN past_due_at BIGINT; -- since when an invoice is overdue
ALTER TABLE subscriptions ADD COLUMN disabled_at BIGINT; -- the grace is over: no tokens until it is paid
ALTER TABLE subscriptions ADD COLUMN held_at BIGINT; -- not renewed, because the tenant was suspended
UPDATE subscriptions SET anchor_at = period_start;
UPDATE subscriptions SET cancelled_at = period_start WHERE state = 'cancelled';
UPDATE subscriptions SET past_due_at = period_start WHERE state = 'past_due';
ALTER TABLE subscriptions DROP COLUMN state;
CREATE INDEX subscriptions_by_period_end ON subscriptions (period_end) WHERE ended_at IS NULL;

-- One row per tenant that has to do with money. Whoever changes a subscription, a line, an invoice or a payment of the
-- tenant updates it first: that is what puts such changes one after the other.
CREATE TABLE billing_accounts (
    tenant_id TEXT NOT NULL PRIMARY KEY REFERENCES tenants (id),
    version BIGINT NOT NULL
);

-- Numbers of invoices have no gaps.
CREATE TABLE billing_head (
    id BIGINT NOT NULL PRIMARY KEY,
    last_number BIGINT NOT NULL
);
INSERT INTO billing_head (id, last_number) VALUES (1, 0);

CREATE TABLE invoices (
    id TEXT NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL UNIQUE,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    subscription_id TEXT NOT NULL REFERENCES subscriptions (id),
    app_id TEXT NOT NULL,
    currency TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'paid', 'void', 'refunded')),
    total_cents BIGINT NOT NULL CHECK (total_cents >= 0), -- the sum of its lines
    credited_cents BIGINT NOT NULL CHECK (credited_cents >= 0), -- settled with credit that arose later
    paid_cents BIGINT NOT NULL CHECK (paid_cents >= 0),
    refunded_cents BIGINT NOT NULL CHECK (refunded_cents >= 0), -- of what was paid
    overpaid_cents BIGINT NOT NULL CHECK (overpaid_cents >= 0), -- what came in beyond the total, and is a credit now
    issued_at BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    settled_at BIGINT,
    CHECK (credited_cents + paid_cents <= total_cents)
);
CREATE INDEX invoices_by_tenant ON invoices (tenant_id, number);
CREATE INDEX invoices_open ON invoices (due_at) WHERE state = 'open';

-- Charges and credits: on an invoice, or waiting for one.
CREATE TABLE invoice_lines (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    currency TEXT NOT NULL,
    subscription_id TEXT NOT NULL REFERENCES subscriptions (id), -- what it is about
    held_for TEXT NOT NULL, -- whose next invoice takes it: a subscription's; empty: any of the tenant's
    invoice_id TEXT REFERENCES invoices (id),
    position BIGINT NOT NULL,
    kind TEXT NOT NULL,
    description TEXT NOT NULL,
    amount_cents BIGINT NOT NULL, -- negative: a credit
    period_start BIGINT,
    period_end BIGINT,
    created_at BIGINT NOT NULL
);
CREATE INDEX invoice_lines_waiting ON invoice_lines (tenant_id) WHERE invoice_id IS NULL;
CREATE INDEX invoice_lines_by_invoice ON invoice_lines (invoice_id);

CREATE TABLE payments (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    invoice_id TEXT NOT NULL REFERENCES invoices (id),
    provider TEXT NOT NULL,
    external_id TEXT NOT NULL, -- the provider's
    kind TEXT NOT NULL CHECK (kind IN ('payment', 'refund')),
    amount_cents BIGINT NOT NULL CHECK (amount_cents > 0),
    reference TEXT NOT NULL,
    at BIGINT NOT NULL,
    UNIQUE (provider, kind, external_id)
);
CREATE INDEX payments_by_invoice ON payments (invoice_id);

-- Webhooks that were acted on: each counts once.
CREATE TABLE webhook_deliveries (
    provider TEXT NOT NULL,
    webhook_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    received_at BIGINT NOT NULL,
    PRIMARY KEY (provider, webhook_id)
);
