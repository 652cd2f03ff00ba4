-- Several control services may share a store (in PostgreSQL; in SQLite there is one). `replica` says which of them has a
-- peer's stream, `replicas` which of them gave a sign of life when. `authority` is the SHA-256 of the certificate
-- authority that the account's agents pin, in hex; empty until control has started once.

ALTER TABLE account ADD COLUMN authority TEXT COLLATE "C" NOT NULL DEFAULT '';

ALTER TABLE peers ADD COLUMN replica TEXT COLLATE "C" NOT NULL DEFAULT '';

CREATE TABLE replicas (
    id        TEXT COLLATE "C" PRIMARY KEY,
    last_seen BIGINT NOT NULL
);
