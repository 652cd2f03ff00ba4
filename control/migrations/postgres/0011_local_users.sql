-- Text sorts by its bytes, as it does in SQLite.
-- Built-in users: the password (PHC string, argon2id) and the secret of one-time codes, empty without one. `login` is the e-mail
-- address in lower case; `totp_step` is the last time step whose code was taken.
CREATE TABLE credentials (
    user_id TEXT COLLATE "C" PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    login TEXT COLLATE "C" NOT NULL UNIQUE,
    password TEXT COLLATE "C" NOT NULL,
    changed_at BIGINT NOT NULL,
    totp_secret BYTEA NOT NULL,
    totp_on BOOLEAN NOT NULL,
    totp_step BIGINT NOT NULL
);

-- Attempts in a row that failed, by SHA-256 of the address, whether anybody has that or not.
CREATE TABLE password_attempts (
    login_hash BYTEA PRIMARY KEY,
    failures BIGINT NOT NULL,
    failed_at BIGINT NOT NULL
);
CREATE INDEX password_attempts_at ON password_attempts (failed_at);

-- Invitations of built-in users: SHA-256 of the secret in the link. `user_id` names the user who gets a password by it; without one it
-- makes a new user.
CREATE TABLE invites (
    id TEXT COLLATE "C" PRIMARY KEY,
    hash BYTEA NOT NULL UNIQUE,
    user_id TEXT COLLATE "C" REFERENCES users (id) ON DELETE CASCADE,
    email TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    role TEXT COLLATE "C" NOT NULL,
    created_by TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE TABLE invite_groups (
    invite_id TEXT COLLATE "C" NOT NULL REFERENCES invites (id) ON DELETE CASCADE,
    group_id TEXT COLLATE "C" NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    PRIMARY KEY (invite_id, group_id)
);
