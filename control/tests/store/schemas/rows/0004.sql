INSERT INTO routes (id, network_id, description, network, peer_id, metric, masquerade, enabled, keep_route,
    skip_auto_apply, slot)
    VALUES ('route', 'lab', '', '2001:db8:9::/48', (SELECT id FROM peers WHERE name = 'gw-1'), 100, TRUE, TRUE, FALSE,
    FALSE, 2);
INSERT INTO route_groups (route_id, role, group_id) VALUES ('route', 1, (SELECT id FROM groups WHERE name = 'ops'));
INSERT INTO nameserver_groups (id, name, description, enabled, is_primary, search_domains_enabled, nameservers, domains)
    VALUES ('names', 'own', '', TRUE, TRUE, FALSE, '[{"ip":"2001:db8::53","port":53}]', '[]');
INSERT INTO nameserver_group_groups (nameserver_group_id, group_id)
    VALUES ('names', (SELECT id FROM groups WHERE name = 'ops'));
INSERT INTO dns_disabled_groups (group_id) VALUES ((SELECT id FROM groups WHERE name = 'ops'));
INSERT INTO zones (id, name, domain, enabled, enable_search_domain) VALUES ('zone', 'zone', 'zone.example', TRUE, FALSE);
INSERT INTO zone_groups (zone_id, group_id) VALUES ('zone', (SELECT id FROM groups WHERE name = 'ops'));
INSERT INTO records (id, zone_id, name, kind, content, ttl)
    VALUES ('record', 'zone', 'www.zone.example', 'AAAA', '2001:db8::7', 300);
