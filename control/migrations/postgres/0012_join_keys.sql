-- Text sorts by its bytes, as it does in SQLite.
-- Keys by which a person lets one machine join: SHA-256. `identity_key` is the machine's that used it, empty before.
CREATE TABLE join_keys (
    hash         BYTEA PRIMARY KEY,
    user_id      TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    expires_at   BIGINT NOT NULL,
    identity_key BYTEA NOT NULL
);
CREATE INDEX join_keys_user ON join_keys (user_id);
