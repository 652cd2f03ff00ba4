-- `checks` is JSON in the shape of the API. A check that a policy names is not deleted.
CREATE TABLE posture_checks (
    id          TEXT COLLATE "C" PRIMARY KEY,
    name        TEXT COLLATE "C" NOT NULL UNIQUE,
    description TEXT COLLATE "C" NOT NULL,
    checks      TEXT COLLATE "C" NOT NULL
);

CREATE TABLE policy_posture_checks (
    policy_id TEXT COLLATE "C" NOT NULL REFERENCES policies (id) ON DELETE CASCADE,
    position  BIGINT NOT NULL,
    check_id  TEXT COLLATE "C" NOT NULL REFERENCES posture_checks (id),
    PRIMARY KEY (policy_id, check_id)
);
CREATE INDEX policy_posture_checks_check ON policy_posture_checks (check_id);

-- What a peer's agent said last, beside what `peers` has. `current` is false from when nothing was heard of it for too long:
-- then only what cannot have changed meanwhile counts. `addresses` and `processes` are JSON; NULL is not said.
CREATE TABLE peer_facts (
    peer_id      TEXT COLLATE "C" PRIMARY KEY REFERENCES peers (id) ON DELETE CASCADE,
    current      BOOLEAN NOT NULL,
    os_version   TEXT COLLATE "C" NOT NULL,
    addresses    TEXT COLLATE "C",
    processes    TEXT COLLATE "C" NOT NULL,
    country_code TEXT COLLATE "C" NOT NULL,
    city_name    TEXT COLLATE "C" NOT NULL,
    geoname_id   BIGINT NOT NULL
);
