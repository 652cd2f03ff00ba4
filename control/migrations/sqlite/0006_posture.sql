-- `checks` is JSON in the shape of the API. A check that a policy names is not deleted.
CREATE TABLE posture_checks (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    checks      TEXT NOT NULL
) STRICT;

CREATE TABLE policy_posture_checks (
    policy_id TEXT    NOT NULL REFERENCES policies (id) ON DELETE CASCADE,
    position  INTEGER NOT NULL,
    check_id  TEXT    NOT NULL REFERENCES posture_checks (id),
    PRIMARY KEY (policy_id, check_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX policy_posture_checks_check ON policy_posture_checks (check_id);

-- What a peer's agent said last, beside what `peers` has. `current` is false from when nothing was heard of it for too long:
-- then only what cannot have changed meanwhile counts. `addresses` and `processes` are JSON; NULL is not said.
CREATE TABLE peer_facts (
    peer_id      TEXT    PRIMARY KEY REFERENCES peers (id) ON DELETE CASCADE,
    current      INTEGER NOT NULL,
    os_version   TEXT    NOT NULL,
    addresses    TEXT,
    processes    TEXT    NOT NULL,
    country_code TEXT    NOT NULL,
    city_name    TEXT    NOT NULL,
    geoname_id   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
