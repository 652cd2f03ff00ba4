INSERT INTO posture_checks (id, name, description, checks)
    VALUES ('check', 'fresh', '', '{"nb_version_check":{"min_version":"0.1.0"}}');
INSERT INTO policy_posture_checks (policy_id, position, check_id)
    VALUES ((SELECT id FROM policies WHERE name = 'database'), 0, 'check');
INSERT INTO peer_facts (peer_id, current, os_version, addresses, processes, country_code, city_name, geoname_id)
    VALUES ((SELECT id FROM peers WHERE name = 'gw-1'), TRUE, '12', '["2001:db8::1/64"]', '{"/x":"running"}', 'SE', 'Linköping',
    2694762);
