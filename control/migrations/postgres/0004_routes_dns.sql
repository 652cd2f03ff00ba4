-- Routes: prefixes behind peers, without a network around them. `network` is the prefix, masked. `slot` is of the same kind
-- as those of rules, and shared with them: a route without access control groups is a rule of its own.

CREATE TABLE routes (
    id              TEXT COLLATE "C" PRIMARY KEY,
    network_id      TEXT COLLATE "C" NOT NULL,
    description     TEXT COLLATE "C" NOT NULL,
    network         TEXT COLLATE "C" NOT NULL,
    peer_id         TEXT COLLATE "C" REFERENCES peers (id),
    metric          BIGINT NOT NULL,
    masquerade      BOOLEAN NOT NULL,
    enabled         BOOLEAN NOT NULL,
    keep_route      BOOLEAN NOT NULL,
    skip_auto_apply BOOLEAN NOT NULL,
    slot            BIGINT NOT NULL UNIQUE
);
CREATE INDEX routes_peer ON routes (peer_id);
CREATE INDEX routes_network ON routes (network);

-- role: 0 who routes, 1 whom it is distributed to, 2 by which groups policies name it.
CREATE TABLE route_groups (
    route_id TEXT COLLATE "C" NOT NULL REFERENCES routes (id) ON DELETE CASCADE,
    role     BIGINT NOT NULL,
    group_id TEXT COLLATE "C" NOT NULL REFERENCES groups (id),
    PRIMARY KEY (route_id, role, group_id)
);
CREATE INDEX route_groups_group ON route_groups (group_id);

CREATE TABLE nameserver_groups (
    id                     TEXT COLLATE "C" PRIMARY KEY,
    name                   TEXT COLLATE "C" NOT NULL UNIQUE,
    description            TEXT COLLATE "C" NOT NULL,
    enabled                BOOLEAN NOT NULL,
    is_primary             BOOLEAN NOT NULL,
    search_domains_enabled BOOLEAN NOT NULL,
    nameservers            TEXT COLLATE "C" NOT NULL,
    domains                TEXT COLLATE "C" NOT NULL
);

CREATE TABLE nameserver_group_groups (
    nameserver_group_id TEXT COLLATE "C" NOT NULL REFERENCES nameserver_groups (id) ON DELETE CASCADE,
    group_id            TEXT COLLATE "C" NOT NULL REFERENCES groups (id),
    PRIMARY KEY (nameserver_group_id, group_id)
);
CREATE INDEX nameserver_group_groups_group ON nameserver_group_groups (group_id);

-- Groups whose peers keep their resolver as it is.
CREATE TABLE dns_disabled_groups (
    group_id TEXT COLLATE "C" PRIMARY KEY REFERENCES groups (id)
);

CREATE TABLE zones (
    id                   TEXT COLLATE "C" PRIMARY KEY,
    name                 TEXT COLLATE "C" NOT NULL,
    domain               TEXT COLLATE "C" NOT NULL UNIQUE,
    enabled              BOOLEAN NOT NULL,
    enable_search_domain BOOLEAN NOT NULL
);

CREATE TABLE zone_groups (
    zone_id  TEXT COLLATE "C" NOT NULL REFERENCES zones (id) ON DELETE CASCADE,
    group_id TEXT COLLATE "C" NOT NULL REFERENCES groups (id),
    PRIMARY KEY (zone_id, group_id)
);
CREATE INDEX zone_groups_group ON zone_groups (group_id);

CREATE TABLE records (
    id      TEXT COLLATE "C" PRIMARY KEY,
    zone_id TEXT COLLATE "C" NOT NULL REFERENCES zones (id) ON DELETE CASCADE,
    name    TEXT COLLATE "C" NOT NULL,
    kind    TEXT COLLATE "C" NOT NULL,
    content TEXT COLLATE "C" NOT NULL,
    ttl     BIGINT NOT NULL
);
CREATE INDEX records_zone ON records (zone_id);
