-- The fleet: what lets a node in, and the nodes that came.

CREATE TABLE node_enrolments (
    secret_hash TEXT NOT NULL PRIMARY KEY,
    uses_left BIGINT NOT NULL CHECK (uses_left >= 0),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE TABLE nodes (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    region TEXT NOT NULL,
    cluster TEXT NOT NULL,
    public_url TEXT NOT NULL,
    capacity BIGINT NOT NULL, -- connections
    version TEXT NOT NULL,
    wanted_state TEXT NOT NULL CHECK (wanted_state IN ('active', 'draining')), -- the operator's word
    reported_state TEXT NOT NULL CHECK (reported_state IN ('active', 'draining')), -- the node's own
    connections BIGINT NOT NULL, -- as of the last heartbeat
    documents BIGINT NOT NULL,
    credential_hash TEXT NOT NULL UNIQUE,
    enrolled_at BIGINT NOT NULL,
    last_heartbeat_at BIGINT NOT NULL
);
