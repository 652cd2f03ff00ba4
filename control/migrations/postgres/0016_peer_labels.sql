-- DNS labels that a machine asked for when it joined, beside the one that is made of its name.
CREATE TABLE peer_labels (
    label   TEXT COLLATE "C" PRIMARY KEY,
    peer_id TEXT COLLATE "C" NOT NULL REFERENCES peers (id) ON DELETE CASCADE
);
CREATE INDEX peer_labels_peer ON peer_labels (peer_id);
