INSERT INTO credentials (user_id, login, password, changed_at, totp_secret, totp_on, totp_step)
    VALUES ('bea', 'bea@example.org', '$argon2id$none', 1795355470808, X'05', TRUE, 7);
INSERT INTO password_attempts (login_hash, failures, failed_at) VALUES (X'06', 3, 1795355470808);
INSERT INTO invites (id, hash, user_id, email, name, role, created_by, created_at, expires_at)
    VALUES ('invite', X'07', NULL, 'eve@example.org', 'Eve', 'user', 'bea', 1795355470808, 4102444800000);
INSERT INTO invite_groups (invite_id, group_id) VALUES ('invite', (SELECT id FROM groups WHERE name = 'ops'));
