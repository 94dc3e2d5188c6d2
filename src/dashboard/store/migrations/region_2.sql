-- What apps use, as nodes report it.

-- The last report of each node that counted, for each license region it had apps of.
CREATE TABLE usage_reports (
    node_id TEXT NOT NULL,
    region TEXT NOT NULL,
    boot BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    PRIMARY KEY (node_id, region)
);

-- What a node has of an app now, or had when it was last heard of.
CREATE TABLE usage_live (
    app_id TEXT NOT NULL,
    node_id TEXT NOT NULL,
    region TEXT NOT NULL,
    boot BIGINT NOT NULL,
    connections BIGINT NOT NULL,
    documents BIGINT NOT NULL,
    PRIMARY KEY (app_id, node_id)
);
CREATE INDEX usage_live_by_node ON usage_live (node_id, boot);

-- A day of minutes and a year of hours: the most that was held at once over all nodes, and all ops.
CREATE TABLE usage_minutes (
    app_id TEXT NOT NULL,
    at BIGINT NOT NULL, -- when the minute began
    connections BIGINT NOT NULL,
    documents BIGINT NOT NULL,
    ops BIGINT NOT NULL,
    PRIMARY KEY (app_id, at)
);
CREATE INDEX usage_minutes_by_time ON usage_minutes (at);

CREATE TABLE usage_hours (
    app_id TEXT NOT NULL,
    at BIGINT NOT NULL, -- when the hour began
    connections BIGINT NOT NULL,
    documents BIGINT NOT NULL,
    ops BIGINT NOT NULL,
    PRIMARY KEY (app_id, at)
);
CREATE INDEX usage_hours_by_time ON usage_hours (at);
