-- One account with everything in it. Times are Unix milliseconds; ids are opaque text; lists that nothing
-- refers into (ports, meta) are JSON text. Text sorts by its bytes, as it does in SQLite.

CREATE TABLE account (
    only_one   BIGINT PRIMARY KEY CHECK (only_one = 1),
    id         TEXT COLLATE "C" NOT NULL,
    domain     TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT COLLATE "C" NOT NULL,
    revision   BIGINT NOT NULL,
    settings   TEXT COLLATE "C" NOT NULL
);

CREATE TABLE groups (
    id       TEXT COLLATE "C" PRIMARY KEY,
    name     TEXT COLLATE "C" NOT NULL UNIQUE,
    issued   TEXT COLLATE "C" NOT NULL,
    built_in BOOLEAN NOT NULL DEFAULT FALSE
);

CREATE TABLE users (
    id               TEXT COLLATE "C" PRIMARY KEY,
    name             TEXT COLLATE "C" NOT NULL,
    email            TEXT COLLATE "C" NOT NULL,
    role             TEXT COLLATE "C" NOT NULL,
    is_service_user  BOOLEAN NOT NULL,
    blocked          BOOLEAN NOT NULL,
    invited          BOOLEAN NOT NULL,
    created_at       BIGINT NOT NULL,
    last_login       BIGINT
);
CREATE UNIQUE INDEX users_email ON users (email) WHERE email <> '';

CREATE TABLE user_groups (
    user_id  TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    group_id TEXT COLLATE "C" NOT NULL REFERENCES groups (id),
    PRIMARY KEY (user_id, group_id)
);
CREATE INDEX user_groups_group ON user_groups (group_id);

CREATE TABLE tokens (
    id         TEXT COLLATE "C" PRIMARY KEY,
    user_id    TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name       TEXT COLLATE "C" NOT NULL,
    hash       BYTEA NOT NULL UNIQUE,
    created_by TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    last_used  BIGINT
);
CREATE INDEX tokens_user ON tokens (user_id);

CREATE TABLE setup_keys (
    id                     TEXT COLLATE "C" PRIMARY KEY,
    name                   TEXT COLLATE "C" NOT NULL,
    hash                   BYTEA NOT NULL UNIQUE,
    masked                 TEXT COLLATE "C" NOT NULL,
    reusable               BOOLEAN NOT NULL,
    created_at             BIGINT NOT NULL,
    updated_at             BIGINT NOT NULL,
    expires_at             BIGINT,
    revoked                BOOLEAN NOT NULL,
    used_times             BIGINT NOT NULL,
    last_used              BIGINT,
    usage_limit            BIGINT NOT NULL,
    ephemeral              BOOLEAN NOT NULL,
    allow_extra_dns_labels BOOLEAN NOT NULL
);

CREATE TABLE setup_key_groups (
    setup_key_id TEXT COLLATE "C" NOT NULL REFERENCES setup_keys (id) ON DELETE CASCADE,
    group_id     TEXT COLLATE "C" NOT NULL REFERENCES groups (id),
    PRIMARY KEY (setup_key_id, group_id)
);
CREATE INDEX setup_key_groups_group ON setup_key_groups (group_id);

CREATE TABLE peers (
    id                            TEXT COLLATE "C" PRIMARY KEY,
    wireguard_key                 BYTEA NOT NULL UNIQUE,
    identity_key                  BYTEA NOT NULL,
    setup_key_id                  TEXT COLLATE "C" NOT NULL,
    role                          TEXT COLLATE "C" NOT NULL,
    name                          TEXT COLLATE "C" NOT NULL UNIQUE,
    hostname                      TEXT COLLATE "C" NOT NULL,
    dns_label                     TEXT COLLATE "C" NOT NULL UNIQUE,
    ip                            TEXT COLLATE "C" NOT NULL UNIQUE,
    ipv6                          TEXT COLLATE "C" NOT NULL UNIQUE,
    endpoint                      TEXT COLLATE "C",
    connection_ip                 TEXT COLLATE "C" NOT NULL,
    os                            TEXT COLLATE "C" NOT NULL,
    kernel_version                TEXT COLLATE "C" NOT NULL,
    version                       TEXT COLLATE "C" NOT NULL,
    created_at                    BIGINT NOT NULL,
    last_seen                     BIGINT NOT NULL,
    last_login                    BIGINT NOT NULL,
    connected                     BOOLEAN NOT NULL,
    ephemeral                     BOOLEAN NOT NULL,
    approval_required             BOOLEAN NOT NULL,
    ssh_enabled                   BOOLEAN NOT NULL,
    login_expiration_enabled      BOOLEAN NOT NULL,
    inactivity_expiration_enabled BOOLEAN NOT NULL
);

CREATE TABLE group_peers (
    group_id TEXT COLLATE "C" NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    peer_id  TEXT COLLATE "C" NOT NULL REFERENCES peers (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, peer_id)
);
CREATE INDEX group_peers_peer ON group_peers (peer_id);

CREATE TABLE networks (
    id          TEXT COLLATE "C" PRIMARY KEY,
    name        TEXT COLLATE "C" NOT NULL UNIQUE,
    description TEXT COLLATE "C" NOT NULL
);

CREATE TABLE resources (
    id          TEXT COLLATE "C" PRIMARY KEY,
    network_id  TEXT COLLATE "C" NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    name        TEXT COLLATE "C" NOT NULL UNIQUE,
    description TEXT COLLATE "C" NOT NULL,
    address     TEXT COLLATE "C" NOT NULL,
    kind        TEXT COLLATE "C" NOT NULL,
    enabled     BOOLEAN NOT NULL
);
CREATE INDEX resources_network ON resources (network_id);

CREATE TABLE group_resources (
    group_id    TEXT COLLATE "C" NOT NULL REFERENCES groups (id),
    resource_id TEXT COLLATE "C" NOT NULL REFERENCES resources (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, resource_id)
);
CREATE INDEX group_resources_resource ON group_resources (resource_id);

CREATE TABLE routers (
    id         TEXT COLLATE "C" PRIMARY KEY,
    network_id TEXT COLLATE "C" NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    peer_id    TEXT COLLATE "C" REFERENCES peers (id),
    metric     BIGINT NOT NULL,
    masquerade BOOLEAN NOT NULL,
    enabled    BOOLEAN NOT NULL
);
CREATE INDEX routers_network ON routers (network_id);
CREATE INDEX routers_peer ON routers (peer_id);

CREATE TABLE router_groups (
    router_id TEXT COLLATE "C" NOT NULL REFERENCES routers (id) ON DELETE CASCADE,
    group_id  TEXT COLLATE "C" NOT NULL REFERENCES groups (id),
    PRIMARY KEY (router_id, group_id)
);
CREATE INDEX router_groups_group ON router_groups (group_id);

CREATE TABLE policies (
    id          TEXT COLLATE "C" PRIMARY KEY,
    name        TEXT COLLATE "C" NOT NULL UNIQUE,
    description TEXT COLLATE "C" NOT NULL,
    enabled     BOOLEAN NOT NULL
);

-- `slot` names the rule in compiled images and counters, for the rule's whole life.
CREATE TABLE rules (
    id                   TEXT COLLATE "C" PRIMARY KEY,
    policy_id            TEXT COLLATE "C" NOT NULL REFERENCES policies (id) ON DELETE CASCADE,
    position             BIGINT NOT NULL,
    slot                 BIGINT NOT NULL UNIQUE,
    name                 TEXT COLLATE "C" NOT NULL,
    description          TEXT COLLATE "C" NOT NULL,
    enabled              BOOLEAN NOT NULL,
    action               TEXT COLLATE "C" NOT NULL,
    bidirectional        BOOLEAN NOT NULL,
    protocol             TEXT COLLATE "C" NOT NULL,
    ports                TEXT COLLATE "C" NOT NULL,
    port_ranges          TEXT COLLATE "C" NOT NULL,
    authorized_groups    TEXT COLLATE "C" NOT NULL,
    source_peer          TEXT COLLATE "C" REFERENCES peers (id),
    source_resource      TEXT COLLATE "C" REFERENCES resources (id),
    destination_peer     TEXT COLLATE "C" REFERENCES peers (id),
    destination_resource TEXT COLLATE "C" REFERENCES resources (id)
);
CREATE INDEX rules_policy ON rules (policy_id, position);
CREATE INDEX rules_source_peer ON rules (source_peer);
CREATE INDEX rules_source_resource ON rules (source_resource);
CREATE INDEX rules_destination_peer ON rules (destination_peer);
CREATE INDEX rules_destination_resource ON rules (destination_resource);

-- side: 0 sources, 1 destinations.
CREATE TABLE rule_groups (
    rule_id  TEXT COLLATE "C" NOT NULL REFERENCES rules (id) ON DELETE CASCADE,
    side     BIGINT NOT NULL,
    position BIGINT NOT NULL,
    group_id TEXT COLLATE "C" NOT NULL REFERENCES groups (id),
    PRIMARY KEY (rule_id, side, group_id)
);
CREATE INDEX rule_groups_group ON rule_groups (group_id);

CREATE TABLE events (
    id              BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at              BIGINT NOT NULL,
    revision        BIGINT NOT NULL,
    code            TEXT COLLATE "C" NOT NULL,
    initiator_id    TEXT COLLATE "C" NOT NULL,
    initiator_name  TEXT COLLATE "C" NOT NULL,
    initiator_email TEXT COLLATE "C" NOT NULL,
    target_id       TEXT COLLATE "C" NOT NULL,
    meta            TEXT COLLATE "C" NOT NULL
);
