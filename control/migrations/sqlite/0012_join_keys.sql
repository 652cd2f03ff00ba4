-- Keys by which a person lets one machine join: SHA-256. `identity_key` is the machine's that used it, empty before.
CREATE TABLE join_keys (
    hash         BLOB    PRIMARY KEY,
    user_id      TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    expires_at   INTEGER NOT NULL,
    identity_key BLOB    NOT NULL
) STRICT;
CREATE INDEX join_keys_user ON join_keys (user_id);
