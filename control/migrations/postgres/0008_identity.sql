-- Text sorts by its bytes, as it does in SQLite.
-- Who users are. A person is known by `issuer` and `subject`: those of the identity provider. Both are empty for service users
-- and for who was invited and has not come yet. Two people may have one e-mail address, for a provider may give an address to
-- somebody else.

ALTER TABLE users ADD COLUMN issuer TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN subject TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN pending_approval BOOLEAN NOT NULL DEFAULT FALSE;
DROP INDEX users_email;
CREATE INDEX users_email ON users (email) WHERE email <> '';
CREATE UNIQUE INDEX users_subject ON users (issuer, subject) WHERE subject <> '';

-- Where people are logged in: SHA-256 of the token that each login gave.
CREATE TABLE sessions (
    id         TEXT COLLATE "C" PRIMARY KEY,
    user_id    TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hash       BYTEA NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX sessions_user ON sessions (user_id);

-- `user_id` is empty for a peer that a setup key made. `expired` is '', 'login' or 'inactivity'.
ALTER TABLE peers ADD COLUMN user_id TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE peers ADD COLUMN expired TEXT COLLATE "C" NOT NULL DEFAULT '';
CREATE INDEX peers_user ON peers (user_id) WHERE user_id <> '';
