-- Routes: prefixes behind peers, without a network around them. `network` is the prefix, masked. `slot` is of the same kind
-- as those of rules, and shared with them: a route without access control groups is a rule of its own.

CREATE TABLE routes (
    id              TEXT    PRIMARY KEY,
    network_id      TEXT    NOT NULL,
    description     TEXT    NOT NULL,
    network         TEXT    NOT NULL,
    peer_id         TEXT             REFERENCES peers (id),
    metric          INTEGER NOT NULL,
    masquerade      INTEGER NOT NULL,
    enabled         INTEGER NOT NULL,
    keep_route      INTEGER NOT NULL,
    skip_auto_apply INTEGER NOT NULL,
    slot            INTEGER NOT NULL UNIQUE
) STRICT;
CREATE INDEX routes_peer ON routes (peer_id);
CREATE INDEX routes_network ON routes (network);

-- role: 0 who routes, 1 whom it is distributed to, 2 by which groups policies name it.
CREATE TABLE route_groups (
    route_id TEXT    NOT NULL REFERENCES routes (id) ON DELETE CASCADE,
    role     INTEGER NOT NULL,
    group_id TEXT    NOT NULL REFERENCES groups (id),
    PRIMARY KEY (route_id, role, group_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX route_groups_group ON route_groups (group_id);

CREATE TABLE nameserver_groups (
    id                     TEXT    PRIMARY KEY,
    name                   TEXT    NOT NULL UNIQUE,
    description            TEXT    NOT NULL,
    enabled                INTEGER NOT NULL,
    is_primary             INTEGER NOT NULL,
    search_domains_enabled INTEGER NOT NULL,
    nameservers            TEXT    NOT NULL,
    domains                TEXT    NOT NULL
) STRICT;

CREATE TABLE nameserver_group_groups (
    nameserver_group_id TEXT NOT NULL REFERENCES nameserver_groups (id) ON DELETE CASCADE,
    group_id            TEXT NOT NULL REFERENCES groups (id),
    PRIMARY KEY (nameserver_group_id, group_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX nameserver_group_groups_group ON nameserver_group_groups (group_id);

-- Groups whose peers keep their resolver as it is.
CREATE TABLE dns_disabled_groups (
    group_id TEXT PRIMARY KEY REFERENCES groups (id)
) STRICT, WITHOUT ROWID;

CREATE TABLE zones (
    id                   TEXT    PRIMARY KEY,
    name                 TEXT    NOT NULL,
    domain               TEXT    NOT NULL UNIQUE,
    enabled              INTEGER NOT NULL,
    enable_search_domain INTEGER NOT NULL
) STRICT;

CREATE TABLE zone_groups (
    zone_id  TEXT NOT NULL REFERENCES zones (id) ON DELETE CASCADE,
    group_id TEXT NOT NULL REFERENCES groups (id),
    PRIMARY KEY (zone_id, group_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX zone_groups_group ON zone_groups (group_id);

CREATE TABLE records (
    id      TEXT    PRIMARY KEY,
    zone_id TEXT    NOT NULL REFERENCES zones (id) ON DELETE CASCADE,
    name    TEXT    NOT NULL,
    kind    TEXT    NOT NULL,
    content TEXT    NOT NULL,
    ttl     INTEGER NOT NULL
) STRICT;
CREATE INDEX records_zone ON records (zone_id);
