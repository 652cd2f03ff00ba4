-- Logins by which a person lets a machine in, or back in. `hash` is of the machine's secret, `code` what the person types. `state` is
-- waiting, admitted (by `user_id`), used, or refused (`refusal` says why). `peer_id` is the peer that is there already, empty to
-- join. `device_code` is the identity provider's, sealed with the secret; empty without one. It is asked about it every `gap`
-- milliseconds, and not before `ask_at`.
CREATE TABLE machine_logins (
    hash          BLOB PRIMARY KEY,
    code          TEXT NOT NULL UNIQUE,
    state         TEXT NOT NULL,
    refusal       TEXT NOT NULL,
    user_id       TEXT REFERENCES users (id) ON DELETE CASCADE,
    peer_id       TEXT NOT NULL,
    identity_key  BLOB NOT NULL,
    wireguard_key BLOB NOT NULL,
    role          TEXT NOT NULL,
    hostname      TEXT NOT NULL,
    os            TEXT NOT NULL,
    address       TEXT NOT NULL,
    source        TEXT NOT NULL,
    device_code   BLOB NOT NULL,
    gap           INTEGER NOT NULL,
    ask_at        INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX machine_logins_user ON machine_logins (user_id);
CREATE INDEX machine_logins_source ON machine_logins (source);
