-- Every audit event carries the hash of the one before it and its own, in hex (see the crate `sluicegate-audit`).
-- `audit_chain` is the newest event, and the last of those that retention removed with how many it removed. Control
-- computes the hashes of the events that are there already when it starts; until then `head_id` is 0.

ALTER TABLE events ADD COLUMN previous TEXT NOT NULL DEFAULT '';

ALTER TABLE events ADD COLUMN hash TEXT NOT NULL DEFAULT '';

CREATE TABLE audit_chain (
    only_one       INTEGER PRIMARY KEY CHECK (only_one = 1),
    head_id        INTEGER NOT NULL,
    head_hash      TEXT    NOT NULL,
    anchor_id      INTEGER NOT NULL,
    anchor_hash    TEXT    NOT NULL,
    anchor_removed INTEGER NOT NULL
) STRICT;

INSERT INTO audit_chain VALUES (
    1,
    0, '0000000000000000000000000000000000000000000000000000000000000000',
    0, '0000000000000000000000000000000000000000000000000000000000000000',
    0
);
