-- Which process of a node speaks: reports of usage begin anew with each.
ALTER TABLE nodes ADD COLUMN boot BIGINT NOT NULL DEFAULT 0;

-- Reports of usage name apps; their subscriptions say which region they are of.
CREATE INDEX subscriptions_by_app ON subscriptions (app_id);
