UPDATE resources SET address = 'db.example.org', kind = 'domain' WHERE name = 'db';
INSERT INTO learned_addresses (resource_id, peer_id, name, address)
    SELECT s.id, p.id, 'db.example.org', a.address FROM resources s, peers p,
    (SELECT '10.0.0.5' AS address UNION ALL SELECT '2001:db8:7::5') a WHERE s.name = 'db' AND p.name = 'gw-1';
