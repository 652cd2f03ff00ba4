-- What flows there were, summed up by day (since 1970, UTC), for whoever asks what a policy was used for. `peer` is the source's peer id,
-- and empty where the source is none, whose address `source` is then. `destination` is the id of a peer or resource, or else an address;
-- `address` is one that it had. `port` is the destination's, or the type of an ICMP message. `enters`: told of by the agent where the
-- flow comes into the overlay; a flow may be told of there and where it leaves. `begun` and `ended` are numbers of events.
CREATE TABLE flow_sums (
    day         BIGINT NOT NULL,
    peer        TEXT COLLATE "C" NOT NULL,
    verdict     TEXT COLLATE "C" NOT NULL CHECK (verdict IN ('accept', 'drop', 'revoke')),
    source      TEXT COLLATE "C" NOT NULL,
    destination TEXT COLLATE "C" NOT NULL,
    version     BIGINT NOT NULL,
    protocol    BIGINT NOT NULL,
    port        BIGINT NOT NULL,
    policy_id   TEXT COLLATE "C" NOT NULL,
    rule_id     TEXT COLLATE "C" NOT NULL,
    enters      BOOLEAN NOT NULL,
    address     TEXT COLLATE "C" NOT NULL,
    begun       BIGINT NOT NULL,
    ended       BIGINT NOT NULL,
    packets     BIGINT NOT NULL,
    bytes       BIGINT NOT NULL,
    first_seen  BIGINT NOT NULL,
    last_seen   BIGINT NOT NULL,
    PRIMARY KEY (day, peer, verdict, source, destination, version, protocol, port, policy_id, rule_id, enters)
);

-- How whole the sums of a day are: the events of each policy (the empty id: of none, or of one that is not known), how many of them are in
-- no sum, since there were too many different ones, and, with the empty id, how many agents said that they had lost, and how often a control
-- ended without having written what it had heard last.
CREATE TABLE flow_days (
    day        BIGINT NOT NULL,
    policy_id  TEXT COLLATE "C" NOT NULL,
    events     BIGINT NOT NULL,
    unfit      BIGINT NOT NULL,
    lost       BIGINT NOT NULL,
    broken_off BIGINT NOT NULL,
    first_seen BIGINT NOT NULL,
    PRIMARY KEY (day, policy_id)
);

-- Who writes sums, and has since when not said that nothing is left to be written.
CREATE TABLE flow_writers (
    replica TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    at      BIGINT NOT NULL
);

-- How many flow events each agent has lost since it started, as it said last: what it says next is counted from there.
CREATE TABLE flow_reporters (
    peer_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    lost    BIGINT NOT NULL
);

-- What replicas ask each other: the flows of agents that have their streams at `replica`. Rows live for as long as somebody waits, no longer
-- than seconds: they need not survive a crash, and no standby needs them. In SQLite there is nobody to ask.
CREATE UNLOGGED TABLE flow_questions (
    id      TEXT COLLATE "C" NOT NULL,
    agent   TEXT COLLATE "C" NOT NULL,
    replica TEXT COLLATE "C" NOT NULL,
    most    BIGINT NOT NULL,
    until   BIGINT NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL DEFAULT '',
    list    BYTEA NOT NULL DEFAULT '',
    PRIMARY KEY (id, agent)
);
