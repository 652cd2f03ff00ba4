-- Answers to requests with an `Idempotency-Key`, kept for a day. `id` is a hash of user and key, `request` one of what was asked;
-- `body` is sealed by a key made from the caller's token and the idempotency key, which are not kept.

CREATE TABLE answers (
    id      BLOB    PRIMARY KEY,
    at      INTEGER NOT NULL,
    request BLOB    NOT NULL,
    status  INTEGER NOT NULL,
    body    BLOB    NOT NULL
) STRICT;
CREATE INDEX answers_at ON answers (at);
