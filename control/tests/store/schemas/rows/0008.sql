INSERT INTO users (id, name, email, role, is_service_user, blocked, invited, created_at, issuer, subject, pending_approval)
    VALUES ('ann', 'Ann', 'ann@example.org', 'user', FALSE, FALSE, FALSE, 1795355470808, 'https://idp.example', 'a-1', FALSE),
    ('bea', 'Bea', 'bea@example.org', 'admin', FALSE, FALSE, FALSE, 1795355470808, 'local', 'bea', FALSE);
INSERT INTO user_groups (user_id, group_id) VALUES ('ann', (SELECT id FROM groups WHERE name = 'ops'));
INSERT INTO sessions (id, user_id, hash, created_at, expires_at)
    VALUES ('session', 'bea', X'04', 1795355470808, 4102444800000);
UPDATE peers SET user_id = 'ann', expired = 'login', login_expiration_enabled = TRUE WHERE name = 'gw-1';
