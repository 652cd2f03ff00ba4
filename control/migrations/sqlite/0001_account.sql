-- One account with everything in it. Times are Unix milliseconds; ids are opaque text; lists that nothing
-- refers into (ports, meta) are JSON text.

CREATE TABLE account (
    only_one   INTEGER PRIMARY KEY CHECK (only_one = 1),
    id         TEXT    NOT NULL,
    domain     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    revision   INTEGER NOT NULL,
    settings   TEXT    NOT NULL
) STRICT;

CREATE TABLE groups (
    id       TEXT    PRIMARY KEY,
    name     TEXT    NOT NULL UNIQUE,
    issued   TEXT    NOT NULL,
    built_in INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE users (
    id               TEXT    PRIMARY KEY,
    name             TEXT    NOT NULL,
    email            TEXT    NOT NULL,
    role             TEXT    NOT NULL,
    is_service_user  INTEGER NOT NULL,
    blocked          INTEGER NOT NULL,
    invited          INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    last_login       INTEGER
) STRICT;
CREATE UNIQUE INDEX users_email ON users (email) WHERE email <> '';

CREATE TABLE user_groups (
    user_id  TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    group_id TEXT NOT NULL REFERENCES groups (id),
    PRIMARY KEY (user_id, group_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX user_groups_group ON user_groups (group_id);

CREATE TABLE tokens (
    id         TEXT    PRIMARY KEY,
    user_id    TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name       TEXT    NOT NULL,
    hash       BLOB    NOT NULL UNIQUE,
    created_by TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    last_used  INTEGER
) STRICT;
CREATE INDEX tokens_user ON tokens (user_id);

CREATE TABLE setup_keys (
    id                     TEXT    PRIMARY KEY,
    name                   TEXT    NOT NULL,
    hash                   BLOB    NOT NULL UNIQUE,
    masked                 TEXT    NOT NULL,
    reusable               INTEGER NOT NULL,
    created_at             INTEGER NOT NULL,
    updated_at             INTEGER NOT NULL,
    expires_at             INTEGER,
    revoked                INTEGER NOT NULL,
    used_times             INTEGER NOT NULL,
    last_used              INTEGER,
    usage_limit            INTEGER NOT NULL,
    ephemeral              INTEGER NOT NULL,
    allow_extra_dns_labels INTEGER NOT NULL
) STRICT;

CREATE TABLE setup_key_groups (
    setup_key_id TEXT NOT NULL REFERENCES setup_keys (id) ON DELETE CASCADE,
    group_id     TEXT NOT NULL REFERENCES groups (id),
    PRIMARY KEY (setup_key_id, group_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX setup_key_groups_group ON setup_key_groups (group_id);

CREATE TABLE peers (
    id                            TEXT    PRIMARY KEY,
    wireguard_key                 BLOB    NOT NULL UNIQUE,
    identity_key                  BLOB    NOT NULL,
    setup_key_id                  TEXT    NOT NULL,
    role                          TEXT    NOT NULL,
    name                          TEXT    NOT NULL UNIQUE,
    hostname                      TEXT    NOT NULL,
    dns_label                     TEXT    NOT NULL UNIQUE,
    ip                            TEXT    NOT NULL UNIQUE,
    ipv6                          TEXT    NOT NULL UNIQUE,
    endpoint                      TEXT,
    connection_ip                 TEXT    NOT NULL,
    os                            TEXT    NOT NULL,
    kernel_version                TEXT    NOT NULL,
    version                       TEXT    NOT NULL,
    created_at                    INTEGER NOT NULL,
    last_seen                     INTEGER NOT NULL,
    last_login                    INTEGER NOT NULL,
    connected                     INTEGER NOT NULL,
    ephemeral                     INTEGER NOT NULL,
    approval_required             INTEGER NOT NULL,
    ssh_enabled                   INTEGER NOT NULL,
    login_expiration_enabled      INTEGER NOT NULL,
    inactivity_expiration_enabled INTEGER NOT NULL
) STRICT;

CREATE TABLE group_peers (
    group_id TEXT NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    peer_id  TEXT NOT NULL REFERENCES peers (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, peer_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX group_peers_peer ON group_peers (peer_id);

CREATE TABLE networks (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL
) STRICT;

CREATE TABLE resources (
    id          TEXT    PRIMARY KEY,
    network_id  TEXT    NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    name        TEXT    NOT NULL UNIQUE,
    description TEXT    NOT NULL,
    address     TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    enabled     INTEGER NOT NULL
) STRICT;
CREATE INDEX resources_network ON resources (network_id);

CREATE TABLE group_resources (
    group_id    TEXT NOT NULL REFERENCES groups (id),
    resource_id TEXT NOT NULL REFERENCES resources (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, resource_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX group_resources_resource ON group_resources (resource_id);

CREATE TABLE routers (
    id         TEXT    PRIMARY KEY,
    network_id TEXT    NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    peer_id    TEXT             REFERENCES peers (id),
    metric     INTEGER NOT NULL,
    masquerade INTEGER NOT NULL,
    enabled    INTEGER NOT NULL
) STRICT;
CREATE INDEX routers_network ON routers (network_id);
CREATE INDEX routers_peer ON routers (peer_id);

CREATE TABLE router_groups (
    router_id TEXT NOT NULL REFERENCES routers (id) ON DELETE CASCADE,
    group_id  TEXT NOT NULL REFERENCES groups (id),
    PRIMARY KEY (router_id, group_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX router_groups_group ON router_groups (group_id);

CREATE TABLE policies (
    id          TEXT    PRIMARY KEY,
    name        TEXT    NOT NULL UNIQUE,
    description TEXT    NOT NULL,
    enabled     INTEGER NOT NULL
) STRICT;

-- `slot` names the rule in compiled images and counters, for the rule's whole life.
CREATE TABLE rules (
    id                   TEXT    PRIMARY KEY,
    policy_id            TEXT    NOT NULL REFERENCES policies (id) ON DELETE CASCADE,
    position             INTEGER NOT NULL,
    slot                 INTEGER NOT NULL UNIQUE,
    name                 TEXT    NOT NULL,
    description          TEXT    NOT NULL,
    enabled              INTEGER NOT NULL,
    action               TEXT    NOT NULL,
    bidirectional        INTEGER NOT NULL,
    protocol             TEXT    NOT NULL,
    ports                TEXT    NOT NULL,
    port_ranges          TEXT    NOT NULL,
    authorized_groups    TEXT    NOT NULL,
    source_peer          TEXT REFERENCES peers (id),
    source_resource      TEXT REFERENCES resources (id),
    destination_peer     TEXT REFERENCES peers (id),
    destination_resource TEXT REFERENCES resources (id)
) STRICT;
CREATE INDEX rules_policy ON rules (policy_id, position);
CREATE INDEX rules_source_peer ON rules (source_peer);
CREATE INDEX rules_source_resource ON rules (source_resource);
CREATE INDEX rules_destination_peer ON rules (destination_peer);
CREATE INDEX rules_destination_resource ON rules (destination_resource);

-- side: 0 sources, 1 destinations.
CREATE TABLE rule_groups (
    rule_id  TEXT    NOT NULL REFERENCES rules (id) ON DELETE CASCADE,
    side     INTEGER NOT NULL,
    position INTEGER NOT NULL,
    group_id TEXT    NOT NULL REFERENCES groups (id),
    PRIMARY KEY (rule_id, side, group_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX rule_groups_group ON rule_groups (group_id);

CREATE TABLE events (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    at              INTEGER NOT NULL,
    revision        INTEGER NOT NULL,
    code            TEXT    NOT NULL,
    initiator_id    TEXT    NOT NULL,
    initiator_name  TEXT    NOT NULL,
    initiator_email TEXT    NOT NULL,
    target_id       TEXT    NOT NULL,
    meta            TEXT    NOT NULL
) STRICT;
