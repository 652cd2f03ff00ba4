-- Answers to requests with an `Idempotency-Key`, kept for a day. `id` is a hash of user and key, `request` one of what was asked;
-- `body` is sealed by a key made from the caller's token and the idempotency key, which are not kept.

CREATE TABLE answers (
    id      BYTEA   PRIMARY KEY,
    at      BIGINT  NOT NULL,
    request BYTEA   NOT NULL,
    status  BIGINT  NOT NULL,
    body    BYTEA   NOT NULL
);
CREATE INDEX answers_at ON answers (at);
