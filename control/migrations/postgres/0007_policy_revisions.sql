-- Revisions of what policy files describe, each whole as a file; and break-glass policies: `break_glass` is the longest time
-- in seconds that one may be on at once, and what is on ends at `break_glass_until`.

CREATE TABLE policy_revisions (
    number  BIGINT PRIMARY KEY,
    at      BIGINT NOT NULL,
    kind    TEXT COLLATE "C" NOT NULL,
    actor   TEXT COLLATE "C" NOT NULL,
    message TEXT COLLATE "C" NOT NULL,
    file    TEXT COLLATE "C" NOT NULL
);

ALTER TABLE policies ADD COLUMN break_glass BIGINT;

ALTER TABLE policies ADD COLUMN break_glass_until BIGINT;

ALTER TABLE policies ADD COLUMN break_glass_reason TEXT COLLATE "C" NOT NULL DEFAULT '';
