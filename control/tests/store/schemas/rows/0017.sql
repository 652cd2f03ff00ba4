INSERT INTO flow_sums (day, peer, verdict, source, destination, version, protocol, port, policy_id, rule_id, enters, address, begun,
    ended, packets, bytes, first_seen, last_seen)
    VALUES (20780, 'gone', 'accept', '', '2001:db8:7::5', 6, 6, 443, 'p', 'r', TRUE, '', 2, 1, 10, 1000, 1795355470809, 1795355470810);
INSERT INTO flow_days (day, policy_id, events, unfit, lost, broken_off, first_seen) VALUES (20780, 'p', 3, 0, 0, 0, 1795355470809);
INSERT INTO flow_reporters (peer_id, lost) VALUES ('gone', 7);
