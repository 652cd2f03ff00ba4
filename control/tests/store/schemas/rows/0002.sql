INSERT INTO replicas (id, last_seen) VALUES ('gone', 1795355470808);
