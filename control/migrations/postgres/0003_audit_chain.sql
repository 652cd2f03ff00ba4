-- Every audit event carries the hash of the one before it and its own, in hex (see the crate `sluicegate-audit`).
-- `audit_chain` is the newest event, and the last of those that retention removed with how many it removed. Control
-- computes the hashes of the events that are there already when it starts; until then `head_id` is 0.

ALTER TABLE events ADD COLUMN previous TEXT COLLATE "C" NOT NULL DEFAULT '';

ALTER TABLE events ADD COLUMN hash TEXT COLLATE "C" NOT NULL DEFAULT '';

-- An id is part of what is hashed, so whoever writes an event gives it its id. A replica of an older version, which
-- writes events without hashes, can make no change from here on.
ALTER TABLE events ALTER COLUMN id DROP IDENTITY;

CREATE TABLE audit_chain (
    only_one       BIGINT PRIMARY KEY CHECK (only_one = 1),
    head_id        BIGINT NOT NULL,
    head_hash      TEXT COLLATE "C" NOT NULL,
    anchor_id      BIGINT NOT NULL,
    anchor_hash    TEXT COLLATE "C" NOT NULL,
    anchor_removed BIGINT NOT NULL
);

INSERT INTO audit_chain VALUES (
    1,
    0, '0000000000000000000000000000000000000000000000000000000000000000',
    0, '0000000000000000000000000000000000000000000000000000000000000000',
    0
);
