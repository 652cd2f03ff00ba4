-- Text sorts by its bytes, as it does in SQLite.
-- Attempts that failed are counted by where they come from: `scope` names the source, all strangers together, or who is logged in
-- already. What was counted before is of the last hour, and is let go.
DROP TABLE password_attempts;
CREATE TABLE password_attempts (
    login_hash BYTEA NOT NULL,
    scope TEXT COLLATE "C" NOT NULL,
    failures BIGINT NOT NULL,
    failed_at BIGINT NOT NULL,
    PRIMARY KEY (login_hash, scope)
);
CREATE INDEX password_attempts_at ON password_attempts (failed_at);

-- Where built-in users have logged in from: an IPv4 address, or the /64 of an IPv6 one.
CREATE TABLE known_sources (
    user_id TEXT COLLATE "C" NOT NULL REFERENCES credentials (user_id) ON DELETE CASCADE,
    source TEXT COLLATE "C" NOT NULL,
    seen_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, source)
);
