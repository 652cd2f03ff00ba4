INSERT INTO peer_labels (label, peer_id) SELECT 'printer', id FROM peers WHERE name = 'gw-1';
