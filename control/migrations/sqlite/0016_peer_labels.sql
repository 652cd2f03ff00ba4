-- DNS labels that a machine asked for when it joined, beside the one that is made of its name.
CREATE TABLE peer_labels (
    label   TEXT PRIMARY KEY,
    peer_id TEXT NOT NULL REFERENCES peers (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX peer_labels_peer ON peer_labels (peer_id);
