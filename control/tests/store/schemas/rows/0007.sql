INSERT INTO policy_revisions (number, at, kind, actor, message, file)
    VALUES (1, 1795355470808, 'apply', 'bootstrap', 'why', 'groups: []');
UPDATE policies SET break_glass = 3600, break_glass_until = 4102444800000, break_glass_reason = 'a test'
    WHERE name = 'database';
