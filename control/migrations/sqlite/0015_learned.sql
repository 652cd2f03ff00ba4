-- What names of domain resources stand for, as each router says that looks them up; `name` is the resource's own, or one below
-- its wildcard. What one router says takes the place of what it said before.
CREATE TABLE learned_addresses (
    resource_id TEXT NOT NULL REFERENCES resources (id) ON DELETE CASCADE,
    peer_id     TEXT NOT NULL REFERENCES peers (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    address     TEXT NOT NULL,
    PRIMARY KEY (resource_id, peer_id, name, address)
) STRICT;
CREATE INDEX learned_addresses_peer ON learned_addresses (peer_id);

-- Those that count: of peers that are routers of the resource's network now.
CREATE VIEW resource_addresses AS
SELECT DISTINCT s.network_id, l.resource_id, l.name, l.address
FROM learned_addresses l JOIN resources s ON s.id = l.resource_id
WHERE EXISTS (SELECT 1 FROM routers r WHERE r.network_id = s.network_id AND r.enabled AND r.peer_id = l.peer_id)
   OR EXISTS (SELECT 1 FROM routers r JOIN router_groups g ON g.router_id = r.id
              JOIN group_peers m ON m.group_id = g.group_id AND m.peer_id = l.peer_id
              WHERE r.network_id = s.network_id AND r.enabled);

CREATE TRIGGER touched_learned_insert AFTER INSERT ON learned_addresses BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('resource', NEW.resource_id, '');
END;
CREATE TRIGGER touched_learned_delete AFTER DELETE ON learned_addresses BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('resource', OLD.resource_id, '');
END;
CREATE TRIGGER touched_learned_update AFTER UPDATE ON learned_addresses BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('resource', OLD.resource_id, '');
    INSERT INTO touched (kind, id, member) VALUES ('resource', NEW.resource_id, '');
END;
