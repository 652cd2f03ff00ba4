UPDATE users SET groups_at = 1795355470808 WHERE id = 'ann';
