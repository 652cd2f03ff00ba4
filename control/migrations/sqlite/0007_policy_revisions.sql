-- Revisions of what policy files describe, each whole as a file; and break-glass policies: `break_glass` is the longest time
-- in seconds that one may be on at once, and what is on ends at `break_glass_until`.

CREATE TABLE policy_revisions (
    number  INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    kind    TEXT    NOT NULL,
    actor   TEXT    NOT NULL,
    message TEXT    NOT NULL,
    file    TEXT    NOT NULL
) STRICT;

ALTER TABLE policies ADD COLUMN break_glass INTEGER;

ALTER TABLE policies ADD COLUMN break_glass_until INTEGER;

ALTER TABLE policies ADD COLUMN break_glass_reason TEXT NOT NULL DEFAULT '';
