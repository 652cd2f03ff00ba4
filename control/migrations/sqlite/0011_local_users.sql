-- Built-in users: the password (PHC string, argon2id) and the secret of one-time codes, empty without one. `login` is the e-mail
-- address in lower case; `totp_step` is the last time step whose code was taken.
CREATE TABLE credentials (
    user_id     TEXT    PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    login       TEXT    NOT NULL UNIQUE,
    password    TEXT    NOT NULL,
    changed_at  INTEGER NOT NULL,
    totp_secret BLOB    NOT NULL,
    totp_on     INTEGER NOT NULL,
    totp_step   INTEGER NOT NULL
) STRICT;

-- Attempts in a row that failed, by SHA-256 of the address, whether anybody has that or not.
CREATE TABLE password_attempts (
    login_hash BLOB    PRIMARY KEY,
    failures   INTEGER NOT NULL,
    failed_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX password_attempts_at ON password_attempts (failed_at);

-- Invitations of built-in users: SHA-256 of the secret in the link. `user_id` names the user who gets a password by it; without one it
-- makes a new user.
CREATE TABLE invites (
    id         TEXT    PRIMARY KEY,
    hash       BLOB    NOT NULL UNIQUE,
    user_id    TEXT    REFERENCES users (id) ON DELETE CASCADE,
    email      TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    role       TEXT    NOT NULL,
    created_by TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE invite_groups (
    invite_id TEXT NOT NULL REFERENCES invites (id) ON DELETE CASCADE,
    group_id  TEXT NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    PRIMARY KEY (invite_id, group_id)
) STRICT;
