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
-- no sum, since there were too many different ones, and, with the empty id, how many agents said that they had lost.
CREATE TABLE flow_days (
    day        BIGINT NOT NULL,
    policy_id  TEXT COLLATE "C" NOT NULL,
    events     BIGINT NOT NULL,
    unfit      BIGINT NOT NULL,
    lost       BIGINT NOT NULL,
    first_seen BIGINT NOT NULL,
    PRIMARY KEY (day, policy_id)
);

-- How many flow events each agent has lost since it started, as it said last: what it says next is counted from there.
CREATE TABLE flow_reporters (
    peer_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    lost    BIGINT NOT NULL
);
