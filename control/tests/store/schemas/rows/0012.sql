INSERT INTO join_keys (hash, user_id, expires_at, identity_key) VALUES (X'08', 'ann', 4102444800000, X'09');
