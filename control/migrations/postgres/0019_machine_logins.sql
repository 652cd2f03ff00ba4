-- Text sorts by its bytes, as it does in SQLite.
-- Logins by which a person lets a machine in, or back in. `hash` is of the machine's secret, `code` what the person types. `state` is
-- waiting, admitted (by `user_id`), used, or refused (`refusal` says why). `peer_id` is the peer that is there already, empty to
-- join. `device_code` is the identity provider's, sealed with the secret; empty without one. It is asked about it every `gap`
-- milliseconds, and not before `ask_at`.
CREATE TABLE machine_logins (
    hash          BYTEA PRIMARY KEY,
    code          TEXT COLLATE "C" NOT NULL UNIQUE,
    state         TEXT COLLATE "C" NOT NULL,
    refusal       TEXT COLLATE "C" NOT NULL,
    user_id       TEXT COLLATE "C" REFERENCES users (id) ON DELETE CASCADE,
    peer_id       TEXT COLLATE "C" NOT NULL,
    identity_key  BYTEA NOT NULL,
    wireguard_key BYTEA NOT NULL,
    role          TEXT COLLATE "C" NOT NULL,
    hostname      TEXT COLLATE "C" NOT NULL,
    os            TEXT COLLATE "C" NOT NULL,
    address       TEXT COLLATE "C" NOT NULL,
    source        TEXT COLLATE "C" NOT NULL,
    device_code   BYTEA NOT NULL,
    gap           BIGINT NOT NULL,
    ask_at        BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL
);
CREATE INDEX machine_logins_user ON machine_logins (user_id);
CREATE INDEX machine_logins_source ON machine_logins (source);
