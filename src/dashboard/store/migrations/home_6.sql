-- Web sessions and second factors. What a browser or a person holds is stored as a fingerprint; the TOTP secret, which
-- must be read again, is sealed under the master key.

CREATE TABLE web_sessions (
    id_hash TEXT NOT NULL PRIMARY KEY,
    account_id TEXT NOT NULL REFERENCES accounts (id),
    is_half BIGINT NOT NULL, -- 1: the password was right, the second factor is still to come
    wrong_codes BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    last_seen_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL, -- whatever happens
    address TEXT NOT NULL,
    browser TEXT NOT NULL,
    playground_tenant TEXT, -- the app that the playground of this session opens
    playground_app TEXT
);
CREATE INDEX web_sessions_by_account ON web_sessions (account_id);

CREATE TABLE totp_secrets (
    account_id TEXT NOT NULL PRIMARY KEY REFERENCES accounts (id),
    sealed TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    confirmed_at BIGINT, -- NULL: shown, but no code of it was seen yet
    last_step BIGINT NOT NULL -- the newest step whose code was taken: none of it or before is taken again
);

CREATE TABLE recovery_codes (
    account_id TEXT NOT NULL REFERENCES accounts (id),
    code_hash TEXT NOT NULL,
    used_at BIGINT,
    PRIMARY KEY (account_id, code_hash)
);
