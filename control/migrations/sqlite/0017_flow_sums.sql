-- What flows there were, summed up by day (since 1970, UTC), for whoever asks what a policy was used for. `peer` is the source's peer id,
-- and empty where the source is none, whose address `source` is then. `destination` is the id of a peer or resource, or else an address;
-- `address` is one that it had. `port` is the destination's, or the type of an ICMP message. `enters`: told of by the agent where the
-- flow comes into the overlay; a flow may be told of there and where it leaves. `begun` and `ended` are numbers of events.
CREATE TABLE flow_sums (
    day         INTEGER NOT NULL,
    peer        TEXT NOT NULL,
    verdict     TEXT NOT NULL CHECK (verdict IN ('accept', 'drop', 'revoke')),
    source      TEXT NOT NULL,
    destination TEXT NOT NULL,
    version     INTEGER NOT NULL,
    protocol    INTEGER NOT NULL,
    port        INTEGER NOT NULL,
    policy_id   TEXT NOT NULL,
    rule_id     TEXT NOT NULL,
    enters      INTEGER NOT NULL,
    address     TEXT NOT NULL,
    begun       INTEGER NOT NULL,
    ended       INTEGER NOT NULL,
    packets     INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    first_seen  INTEGER NOT NULL,
    last_seen   INTEGER NOT NULL,
    PRIMARY KEY (day, peer, verdict, source, destination, version, protocol, port, policy_id, rule_id, enters)
) STRICT, WITHOUT ROWID;

-- How whole the sums of a day are: the events of each policy (the empty id: of none, or of one that is not known), how many of them are in
-- no sum, since there were too many different ones, and, with the empty id, how many agents said that they had lost, and how often a control
-- ended without having written what it had heard last.
CREATE TABLE flow_days (
    day        INTEGER NOT NULL,
    policy_id  TEXT NOT NULL,
    events     INTEGER NOT NULL,
    unfit      INTEGER NOT NULL,
    lost       INTEGER NOT NULL,
    broken_off INTEGER NOT NULL,
    first_seen INTEGER NOT NULL,
    PRIMARY KEY (day, policy_id)
) STRICT, WITHOUT ROWID;

-- Who writes sums, and has since when not said that nothing is left to be written.
CREATE TABLE flow_writers (
    replica TEXT NOT NULL PRIMARY KEY,
    at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How many flow events each agent has lost since it started, as it said last: what it says next is counted from there.
CREATE TABLE flow_reporters (
    peer_id TEXT NOT NULL PRIMARY KEY,
    lost    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
