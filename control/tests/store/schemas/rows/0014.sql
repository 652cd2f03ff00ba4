INSERT INTO password_attempts (login_hash, scope, failures, failed_at) VALUES (X'06', 'inside', 3, 1795355470808);
INSERT INTO known_sources (user_id, source, seen_at) VALUES ('bea', '2001:db8::/64', 1795355470808);
