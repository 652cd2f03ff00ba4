-- What agents are told of names is followed as well (see 0010): zones, nameserver groups, the groups whose peers' DNS is not managed,
-- and the labels of peers.

CREATE TRIGGER touched_zones_insert AFTER INSERT ON zones BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('zone', NEW.id, '');
END;
CREATE TRIGGER touched_zones_delete AFTER DELETE ON zones BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('zone', OLD.id, '');
END;
CREATE TRIGGER touched_zones_update AFTER UPDATE ON zones BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('zone', OLD.id, '');
    INSERT INTO touched (kind, id, member) VALUES ('zone', NEW.id, '');
END;

CREATE TRIGGER touched_zone_groups_insert AFTER INSERT ON zone_groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('zone', NEW.zone_id, '');
END;
CREATE TRIGGER touched_zone_groups_delete AFTER DELETE ON zone_groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('zone', OLD.zone_id, '');
END;
CREATE TRIGGER touched_zone_groups_update AFTER UPDATE ON zone_groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('zone', OLD.zone_id, '');
    INSERT INTO touched (kind, id, member) VALUES ('zone', NEW.zone_id, '');
END;

CREATE TRIGGER touched_records_insert AFTER INSERT ON records BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('zone', NEW.zone_id, '');
END;
CREATE TRIGGER touched_records_delete AFTER DELETE ON records BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('zone', OLD.zone_id, '');
END;
CREATE TRIGGER touched_records_update AFTER UPDATE ON records BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('zone', OLD.zone_id, '');
    INSERT INTO touched (kind, id, member) VALUES ('zone', NEW.zone_id, '');
END;

CREATE TRIGGER touched_nameserver_groups_insert AFTER INSERT ON nameserver_groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('nameservers', NEW.id, '');
END;
CREATE TRIGGER touched_nameserver_groups_delete AFTER DELETE ON nameserver_groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('nameservers', OLD.id, '');
END;
CREATE TRIGGER touched_nameserver_groups_update AFTER UPDATE ON nameserver_groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('nameservers', OLD.id, '');
    INSERT INTO touched (kind, id, member) VALUES ('nameservers', NEW.id, '');
END;

CREATE TRIGGER touched_nameserver_group_groups_insert AFTER INSERT ON nameserver_group_groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('nameservers', NEW.nameserver_group_id, '');
END;
CREATE TRIGGER touched_nameserver_group_groups_delete AFTER DELETE ON nameserver_group_groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('nameservers', OLD.nameserver_group_id, '');
END;
CREATE TRIGGER touched_nameserver_group_groups_update AFTER UPDATE ON nameserver_group_groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('nameservers', OLD.nameserver_group_id, '');
    INSERT INTO touched (kind, id, member) VALUES ('nameservers', NEW.nameserver_group_id, '');
END;

CREATE TRIGGER touched_dns_disabled_groups_insert AFTER INSERT ON dns_disabled_groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('unmanaged', NEW.group_id, '');
END;
CREATE TRIGGER touched_dns_disabled_groups_delete AFTER DELETE ON dns_disabled_groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('unmanaged', OLD.group_id, '');
END;
CREATE TRIGGER touched_dns_disabled_groups_update AFTER UPDATE ON dns_disabled_groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('unmanaged', OLD.group_id, '');
    INSERT INTO touched (kind, id, member) VALUES ('unmanaged', NEW.group_id, '');
END;

CREATE TRIGGER touched_peer_labels_insert AFTER INSERT ON peer_labels BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('peer', NEW.peer_id, '');
END;
CREATE TRIGGER touched_peer_labels_delete AFTER DELETE ON peer_labels BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('peer', OLD.peer_id, '');
END;
CREATE TRIGGER touched_peer_labels_update AFTER UPDATE ON peer_labels BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('peer', OLD.peer_id, '');
    INSERT INTO touched (kind, id, member) VALUES ('peer', NEW.peer_id, '');
END;

DROP TRIGGER touched_peers_update;
CREATE TRIGGER touched_peers_update AFTER UPDATE ON peers
WHEN (OLD.id, OLD.wireguard_key, OLD.role, OLD.name, OLD.dns_label, OLD.ip, OLD.ipv6, OLD.endpoint,
     OLD.connection_ip, OLD.os, OLD.kernel_version, OLD.version, OLD.approval_required, OLD.user_id,
     OLD.expired)
    IS NOT (NEW.id, NEW.wireguard_key, NEW.role, NEW.name, NEW.dns_label, NEW.ip, NEW.ipv6, NEW.endpoint,
     NEW.connection_ip, NEW.os, NEW.kernel_version, NEW.version, NEW.approval_required, NEW.user_id,
     NEW.expired)
BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('peer', OLD.id, '');
    INSERT INTO touched (kind, id, member) VALUES ('peer', NEW.id, '');
END;
