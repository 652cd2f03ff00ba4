-- Attempts that failed are counted by where they come from: `scope` names the source, all strangers together, or who is logged in
-- already. What was counted before is of the last hour, and is let go.
DROP TABLE password_attempts;
CREATE TABLE password_attempts (
    login_hash BLOB NOT NULL,
    scope TEXT NOT NULL,
    failures INTEGER NOT NULL,
    failed_at INTEGER NOT NULL,
    PRIMARY KEY (login_hash, scope)
);
CREATE INDEX password_attempts_at ON password_attempts (failed_at);

-- Where built-in users have logged in from: an IPv4 address, or the /64 of an IPv6 one.
CREATE TABLE known_sources (
    user_id TEXT NOT NULL REFERENCES credentials (user_id) ON DELETE CASCADE,
    source TEXT NOT NULL,
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, source)
);
