-- The triggers write the rest.
UPDATE groups SET name = 'ops' WHERE name = 'ops';
