-- What agents are told of names is followed as well (see 0010): zones, nameserver groups, the groups whose peers' DNS is not managed,
-- and the labels of peers.

CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON zones
    FOR EACH ROW EXECUTE FUNCTION touch('zone', 'id');
CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON zone_groups
    FOR EACH ROW EXECUTE FUNCTION touch('zone', 'zone_id');
CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON records
    FOR EACH ROW EXECUTE FUNCTION touch('zone', 'zone_id');
CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON nameserver_groups
    FOR EACH ROW EXECUTE FUNCTION touch('nameservers', 'id');
CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON nameserver_group_groups
    FOR EACH ROW EXECUTE FUNCTION touch('nameservers', 'nameserver_group_id');
CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON dns_disabled_groups
    FOR EACH ROW EXECUTE FUNCTION touch('unmanaged', 'group_id');
CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON peer_labels
    FOR EACH ROW EXECUTE FUNCTION touch('peer', 'peer_id');

DROP TRIGGER touched_update ON peers;
CREATE TRIGGER touched_update AFTER UPDATE ON peers FOR EACH ROW
    WHEN ((OLD.id, OLD.wireguard_key, OLD.role, OLD.name, OLD.dns_label, OLD.ip, OLD.ipv6, OLD.endpoint,
          OLD.connection_ip, OLD.os, OLD.kernel_version, OLD.version, OLD.approval_required, OLD.user_id,
          OLD.expired)
          IS DISTINCT FROM (NEW.id, NEW.wireguard_key, NEW.role, NEW.name, NEW.dns_label, NEW.ip, NEW.ipv6, NEW.endpoint,
          NEW.connection_ip, NEW.os, NEW.kernel_version, NEW.version, NEW.approval_required, NEW.user_id,
          NEW.expired))
    EXECUTE FUNCTION touch('peer', 'id');
